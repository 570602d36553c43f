//! Commands about many VNFCIs go to the broker in calls of as many as it takes. What became of the first of them is told
//! although a later one fails: one-time tokens are among it, and MANO has to know whom it need not ask for again.

use super::failure::Failure;
use super::output::OutputArgs;
use crate::clock::Timestamp;
use crate::nfv::{RequestId, Sha256Hash, labelled_fields};
use serde_json::Value;

/// How many VNFCIs go into one call: the broker's bound.
const BATCH: usize = 1_000;

/// Under which name the calls of one command are known to the broker.
#[derive(Debug, clap::Args)]
pub(super) struct BatchArgs {
    /// Go on with a command that failed in between: the id that it said, with all else as before. What was done is told
    /// again, tokens included, for 24 hours
    #[arg(long, value_name = "ID", value_parser = given)]
    request_id: Option<RequestId>,
}

/// A command in calls that the broker recognises when they are repeated.
pub(super) struct Batches {
    id: RequestId,
}

impl BatchArgs {
    /// The calls of this command, or of the one that it goes on with.
    pub(super) fn begin(&self) -> Batches {
        Batches { id: self.request_id.unwrap_or_else(RequestId::generate) }
    }
}

impl Batches {
    /// When the command was run first: what depends on the time is the same in a repetition.
    pub(super) fn begun(&self) -> Timestamp {
        let seconds = self.id.0.get_timestamp().map_or(0, |time| time.to_unix().0);
        Timestamp::from_unix_seconds(i64::try_from(seconds).unwrap_or_default())
    }

    /// Asks for the items of each call under its request id, and tells what became of every one: `call` appends one object
    /// per item that it knows about, whose field `error` is not null if it was refused. `not_done` is what then is to be said of
    /// them, e.g. "were not registered".
    ///
    /// # Errors
    /// That some were refused; or that of the call that failed, with how many were asked for before and how to go on.
    pub(super) async fn ask<T: Clone>(
        &self,
        items: &[T],
        (output, columns, not_done): (OutputArgs, &[&str], &str),
        mut call: impl AsyncFnMut(String, Vec<T>, &mut Vec<Value>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut told = Vec::with_capacity(items.len());
        let mut failed = None;
        for (number, batch) in items.chunks(BATCH).enumerate() {
            if let Err(failure) = call(self.request_id(number), batch.to_vec(), &mut told).await {
                failed = Some(failure);
                break;
            }
        }
        if failed.is_none() || !told.is_empty() {
            output.list(columns, &told);
        }
        let refused = told.iter().filter(|object| !object["error"].is_null()).count();
        match failed {
            None if refused == 0 => Ok(()),
            None => Err(Failure::failed(format!("{refused} of {} VNFCIs {not_done}", items.len()))),
            Some(failure) => Err(failure.during(format!(
                "of {} of {} VNFCIs is told what became of them, {refused} of which {not_done}; repeat the command with \
                 --request-id {} for all of them. What failed",
                told.len(),
                items.len(),
                self.id,
            ))),
        }
    }

    fn request_id(&self, number: usize) -> String {
        let fields = [self.id.0.as_bytes().as_slice(), &(number as u64).to_be_bytes()];
        let hash = Sha256Hash::of(&labelled_fields("keybroker-batch-v1", &fields));
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.0).for_each(|(byte, of_hash)| *byte = of_hash);
        RequestId(uuid::Builder::from_custom_bytes(bytes).into_uuid()).to_string()
    }
}

/// An id that an earlier command said: it says when that was.
fn given(text: &str) -> Result<RequestId, String> {
    let id: RequestId = text.parse().map_err(|error| format!("{error}"))?;
    match id.0.get_timestamp() {
        Some(_) => Ok(id),
        None => Err("is not the id that a command said which failed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn a_command_that_goes_on_asks_under_the_same_ids_as_of_the_same_time() {
        let first = BatchArgs { request_id: None }.begin();
        let again = BatchArgs { request_id: Some(given(&first.id.to_string()).unwrap()) }.begin();
        assert_eq!(first.begun(), again.begun());
        assert_eq!(
            [0, 1].map(|number| first.request_id(number)),
            [0, 1].map(|number| again.request_id(number))
        );
        assert_ne!(first.request_id(0), first.request_id(1));
        assert!(given("8d8ac610-566d-4ef0-9c22-186b2a5ed793").is_err(), "it has no time");
    }
}
