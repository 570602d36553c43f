//! MANO's side: every mutation is asked until it is answered, at one broker or the other, under one request id; and what was
//! answered once is answered the same again.

use super::{ATTEMPT, LONGEST, Place, VNFS};
use crate::support::mano::{pool_request, request_id};
use crate::support::site::Site;
use crate::support::vnfci::transient;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use keybroker::api::client::{Explained, describe};
use keybroker::api::proto;
use keybroker::api::proto::lifecycle_service_client::LifecycleServiceClient;
use keybroker::api::proto::pool_service_client::PoolServiceClient;
use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A mutation of MANO's.
pub(super) trait Mutation: Clone + Debug + Send + Sync + 'static {
    type Answer: Send + 'static;

    fn send(self, channel: Channel) -> BoxFuture<'static, Result<Self::Answer, Status>>;

    /// What of the answer is the same however much later it is given again.
    fn outcome(answer: &Self::Answer) -> String;
}

macro_rules! mutations {
    ($($service:ident . $method:ident ( $request:ident ) -> $answer:ident : $outcome:expr;)+) => {
        $(impl Mutation for proto::$request {
            type Answer = proto::$answer;

            fn send(self, channel: Channel) -> BoxFuture<'static, Result<Self::Answer, Status>> {
                async move { Ok($service::new(channel).$method(self).await?.into_inner()) }.boxed()
            }

            fn outcome(answer: &Self::Answer) -> String {
                let outcome: fn(&Self::Answer) -> String = $outcome;
                outcome(answer)
            }
        })+
    };
}

/// Levels and targets are told as they are now.
fn pool(pool: &Option<proto::Pool>) -> String {
    pool.as_ref().map_or_else(String::new, |pool| format!("{} {}", pool.pool_id, pool.name))
}

mutations! {
    PoolServiceClient.create_pool(CreatePoolRequest) -> CreatePoolResponse: |answer| pool(&answer.pool);
    PoolServiceClient.update_pool(UpdatePoolRequest) -> UpdatePoolResponse: |answer| pool(&answer.pool);
    PoolServiceClient.delete_pool(DeletePoolRequest) -> DeletePoolResponse: |answer| pool(&answer.pool);
    LifecycleServiceClient.register_vnfcis(RegisterVnfcisRequest) -> RegisterVnfcisResponse: |answer| {
        let told = answer.results.iter().map(|result| (&result.vnfci_id, &result.error, &result.token));
        format!("{:?}", told.collect::<Vec<_>>())
    };
    LifecycleServiceClient.rearm_vnfcis(RearmVnfcisRequest) -> RearmVnfcisResponse: |answer| {
        let told = answer.results.iter().map(|result| (&result.vnfci_id, &result.error, &result.token));
        format!("{:?}", told.collect::<Vec<_>>())
    };
    LifecycleServiceClient.request_renewal(RequestRenewalRequest) -> RequestRenewalResponse: |answer| format!("{answer:?}");
    LifecycleServiceClient.terminate_vnfci(TerminateVnfciRequest) -> TerminateVnfciResponse: |answer| format!("{answer:?}");
    LifecycleServiceClient.scale_in(ScaleInRequest) -> ScaleInResponse: |answer| format!("{answer:?}");
    LifecycleServiceClient.terminate_vnf(TerminateVnfRequest) -> TerminateVnfResponse: |answer| format!("{answer:?}");
    LifecycleServiceClient.revoke_certificate(RevokeCertificateRequest) -> RevokeCertificateResponse: |answer| format!("{answer:?}");
}

/// A mutation that was answered, to be asked again.
pub(super) struct Replay {
    pub(super) what: String,
    pub(super) outcome: String,
    send: Box<dyn Fn(Channel) -> BoxFuture<'static, Result<String, Status>> + Send + Sync>,
}

impl Replay {
    fn of<M: Mutation>(asked: &M, answer: &M::Answer) -> Self {
        let asked = asked.clone();
        Self {
            what: format!("{asked:?}"),
            outcome: M::outcome(answer),
            send: Box::new(move |channel| {
                let asked = asked.clone();
                async move { asked.send(channel).await.map(|answer| M::outcome(&answer)) }.boxed()
            }),
        }
    }

    /// Asks again; says what was told otherwise.
    pub(super) async fn repeat(&self, site: &Site) -> Result<Option<String>, Status> {
        let told = match (self.send)(site.reach("nfvo").await?).await {
            Err(status) if transient(&status) => return Err(status),
            Err(status) => format!("{:?}", plainly(&status, &describe(&status))),
            Ok(outcome) => outcome,
        };
        let other = format!("{} was answered {}, and repeated {told}", self.what, self.outcome);
        Ok((told != self.outcome).then_some(other))
    }
}

impl Place {
    /// Tries at one broker after the other, until there is an answer that trying again would not change.
    pub(super) async fn persistently<T, F: Future<Output = Result<T, Status>>>(
        &self,
        what: &str,
        dice: &mut StdRng,
        mut attempt: impl FnMut(Arc<Site>) -> F,
    ) -> Result<T, Status> {
        let begun = Instant::now();
        let mut place = dice.random_range(0..self.sites.len());
        loop {
            let status = match tokio::time::timeout(ATTEMPT, attempt(Arc::clone(&self.sites[place]))).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::cancelled("the client went away"),
            };
            let told = describe(&status);
            let lasting = !transient(&status);
            let status = plainly(&status, &told);
            self.ledger.count(told.reason.clone().unwrap_or_else(|| format!("{:?}", status.code())));
            if status.code() == Code::Internal && told.reason.is_some() {
                self.ledger.fault(format!("{what}: {status:?}"));
                return Err(status);
            }
            if lasting {
                return Err(status);
            }
            if begun.elapsed() > LONGEST {
                self.ledger.fault(format!("{what}: never got through in {LONGEST:?}, at last {status:?}"));
                return Err(status);
            }
            // As a client that is told when to come back, and does not quite believe it.
            let told = told.retry_after.unwrap_or(Duration::from_millis(100)).min(Duration::from_secs(1));
            tokio::time::sleep(told.mul_f64(dice.random_range(0.2..1.0))).await;
            place = (place + usize::from(dice.random_bool(0.7))) % self.sites.len();
        }
    }

    /// A mutation of MANO's; now and then asked again at once, at either broker. None if it was refused, which is a fault
    /// unless the caller expects it.
    pub(super) async fn ask<M: Mutation>(&self, dice: &mut StdRng, asked: M) -> Result<M::Answer, Status> {
        let what = format!("{asked:?}");
        let send = |site: Arc<Site>| {
            let asked = asked.clone();
            async move { asked.send(site.reach("nfvo").await?).await }
        };
        let answer = self.persistently(&what, dice, send).await?;
        self.ledger.count(what.split_whitespace().next().unwrap_or_default());
        let replay = Arc::new(Replay::of(&asked, &answer));
        if dice.random_bool(0.2) {
            let repeat = |site: Arc<Site>| {
                let replay = Arc::clone(&replay);
                async move { replay.repeat(&site).await }
            };
            if let Ok(Some(otherwise)) = self.persistently(&what, dice, repeat).await {
                self.ledger.fault(otherwise);
            }
        }
        self.ledger.notes().requests.push(replay);
        Ok(answer)
    }

    /// The same for what nothing stands against.
    pub(super) async fn ask_surely<M: Mutation>(&self, dice: &mut StdRng, asked: M) -> Option<M::Answer> {
        let what = format!("{asked:?}");
        match self.ask(dice, asked).await {
            Ok(answer) => Some(answer),
            Err(status) => {
                self.ledger.fault(format!("{what}: {status:?}"));
                None
            }
        }
    }
}

/// A status without its details, which are bytes to read.
fn plainly(status: &Status, told: &Explained) -> Status {
    let reason = told.reason.as_deref().unwrap_or("no reason");
    Status::new(status.code(), format!("{reason}: {}", status.message()))
}

/// Pools of VNF instances that nobody else has are created, filled, resized and deleted again.
pub(super) async fn pools_come_and_go(place: Arc<Place>) {
    let mut dice = place.dice("pools");
    for number in 0.. {
        if place.is_over() {
            return;
        }
        let name = format!("passing-{number}");
        let profile = if dice.random_bool(0.5) { "vnfci-transport" } else { "vnfci-named" };
        let create = proto::CreatePoolRequest {
            vnf_instance_id: VNFS[number % VNFS.len()].to_owned(),
            profile: profile.to_owned(),
            ..pool_request(&name, dice.random_range(1..30))
        };
        if place.ask_surely(&mut dice, create).await.is_none() {
            continue;
        }
        for _ in 0..dice.random_range(0..3) {
            pause(&mut dice).await;
            let update = proto::UpdatePoolRequest {
                request_id: request_id(),
                tenant: String::new(),
                name: name.clone(),
                target: dice.random_range(1..30),
                refill_below: None,
            };
            place.ask_surely(&mut dice, update).await;
        }
        pause(&mut dice).await;
        let delete = proto::DeletePoolRequest { request_id: request_id(), tenant: String::new(), name };
        place.ask_surely(&mut dice, delete).await;
    }
}

/// What people and machines do between two requests.
pub(super) async fn pause(dice: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(dice.random_range(0..1_500))).await;
}
