//! Fuzzing of what a client sends: protobuf bytes of every message with fields of their own, through the same parsers as in
//! the handlers.

use super::proto::{
    AddIdentityRequest, ClaimRequest, ConfirmRequest, ListEventsRequest, ListVnfcisRequest,
    RearmVnfcisRequest, RegisterVnfcisRequest, RevokeCertificateRequest, ScaleInRequest,
};
use super::{admin, audit, credential, lifecycle, parse};
use crate::broker::BrokerError;
use crate::nfv::RequestId;
use prost::Message;

/// The first byte chooses the message, the others are its encoding.
pub(crate) fn request(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let parsed = match which % 9 {
        0 => decoded::<ClaimRequest>(bytes, |message| {
            parse::required::<RequestId>("request_id", &message.request_id)?;
            credential::suites(&message.suites)?;
            parse::token_proof(message.token)?;
            let recipient = (&message.recipient_public_key, &message.recipient_rsa_public_key_der);
            credential::recipient(recipient.0, recipient.1).map(drop)
        }),
        1 => decoded::<ConfirmRequest>(bytes, |message| {
            parse::token_proof(message.token)?;
            parse::signatures(message.signatures).map(drop)
        }),
        2 => decoded::<RegisterVnfcisRequest>(bytes, |message| lifecycle::batch(message.vnfcis).map(drop)),
        3 => decoded::<RearmVnfcisRequest>(bytes, |message| {
            message.vnfcis.into_iter().try_for_each(|item| lifecycle::rearming(item).map(drop))
        }),
        4 => decoded::<ScaleInRequest>(bytes, |message| lifecycle::named(message.vnfci_ids).map(drop)),
        5 => decoded::<RevokeCertificateRequest>(bytes, |message| {
            let serial = parse::serial("serial", &message.serial)?;
            // What was accepted once is written in its one form.
            assert_eq!(parse::serial("serial", &serial)?, serial);
            Ok(())
        }),
        6 => decoded::<AddIdentityRequest>(bytes, |message| admin::new_identity(message).map(drop)),
        7 => decoded::<ListEventsRequest>(bytes, |message| {
            let limit = parse::page_size(message.page_size)?;
            audit::query(message.query, message.from_index, limit).map(drop)
        }),
        _ => decoded::<ListVnfcisRequest>(bytes, |message| {
            let page = parse::page(message.page_size, &message.page_token)?;
            if let Some(after) = &page.after {
                let last = std::slice::from_ref(after);
                let full = crate::store::records::Page { after: None, limit: 1 };
                let token = parse::next_page_token(last, &full, Clone::clone);
                assert_eq!(parse::page(1, &token)?.after.as_ref(), Some(after));
            }
            Ok(())
        }),
    };
    // A refusal says which field is wrong, and nothing else comes out of parsing.
    if let Err(error) = parsed {
        assert!(matches!(error, BrokerError::Invalid { .. }), "{error}");
    }
}

/// What the parser makes of a message; bytes that are none are tonic's to refuse.
fn decoded<M: Message + Default>(
    bytes: &[u8],
    parse: impl FnOnce(M) -> Result<(), BrokerError>,
) -> Result<(), BrokerError> {
    M::decode(bytes).map_or(Ok(()), parse)
}
