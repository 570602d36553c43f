//! What goes over a worker's socket: frames of a 4-byte big-endian length and a postcard body.
//!
//! The broker sends one [`Hello`], the worker answers with [`Welcome`]; then every [`Request`] is answered by one
//! [`Response`], in order. The broker may send ahead: the worker reads while it works.

use super::quirks::Capabilities;
use super::{
    HsmError, ObjectId, Produced, RequestTemplate, SealRequest, SealedKey, SignatureAlgorithm, TokenObject,
    VerifiedGone,
};
use crate::credential::KeyType;
use crate::nfv::{EpochId, TenantId};
use crate::sealing::Suite;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Longest body of a frame. The largest real one, a re-wrap of a chunk, stays far below.
pub(super) const MAX_FRAME: usize = 16 << 20;

/// A PIN on its way from the file to the module.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Pin(pub(super) String);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(...)")
    }
}

/// The first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The tenant whose own token it is: the process touches no other's keys.
    pub(super) owner: Option<TenantId>,
    /// Absolute path of the module.
    pub(super) module: PathBuf,
    /// Label of the token.
    pub(super) token: String,
    /// The user PIN.
    pub(super) pin: Pin,
    /// What the process is for.
    pub(super) task: Task,
}

/// What a worker process is started for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Run the self-test for these suites, answer with the capabilities, and end.
    Probe(Vec<Suite>),
    /// Serve requests with the capabilities that the prober found.
    Serve(Capabilities),
    /// Initialise an uninitialised token with this SO PIN, and end (`hsm::softhsm` only).
    Initialize(Pin),
}

/// Answer to [`Hello`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Welcome {
    /// The token's serial number.
    pub(super) token_serial: String,
    /// Manufacturer and version of module and token, for people.
    pub(super) module: String,
    /// As found by the self-test, or as handed in.
    pub(super) capabilities: Capabilities,
    /// Whether the worker's pages are kept out of the swap space.
    pub(super) memory_locked: bool,
}

/// One verb.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// With `requests`, one per key; without, none.
    Produce {
        tenant: TenantId,
        epoch: EpochId,
        key_type: KeyType,
        count: u32,
        requests: Vec<RequestTemplate>,
    },
    Seal(SealRequest),
    Sign {
        key: ObjectId,
        algorithm: SignatureAlgorithm,
        messages: Vec<Vec<u8>>,
    },
    Mac {
        key: ObjectId,
        data: Vec<u8>,
    },
    CreateKeyPair {
        id: ObjectId,
        algorithm: SignatureAlgorithm,
    },
    CreateMacKey {
        id: ObjectId,
    },
    CreateKek {
        tenant: TenantId,
        epoch: EpochId,
    },
    PublicKey {
        id: ObjectId,
    },
    ObjectExists {
        id: ObjectId,
    },
    DestroyKek {
        tenant: TenantId,
        epoch: EpochId,
    },
    Rewrap {
        tenant: TenantId,
        from: EpochId,
        to: EpochId,
        dek_blobs: Vec<Vec<u8>>,
    },
    Inventory,
    VerifyDestroyed {
        ids: Vec<ObjectId>,
    },
}

impl Request {
    /// The tenant whose keys it is about; none if they are the broker's own.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Produce { tenant, .. }
            | Self::CreateKek { tenant, .. }
            | Self::DestroyKek { tenant, .. }
            | Self::Rewrap { tenant, .. } => Some(tenant),
            Self::Seal(request) => Some(&request.tenant),
            Self::Sign { key: id, .. }
            | Self::Mac { key: id, .. }
            | Self::CreateKeyPair { id, .. }
            | Self::CreateMacKey { id }
            | Self::PublicKey { id }
            | Self::ObjectExists { id } => id.tenant(),
            Self::VerifyDestroyed { ids } => ids.first().and_then(ObjectId::tenant),
            Self::Inventory => None,
        }
    }
}

/// The answer of a verb that succeeded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Produced(Produced),
    Sealed(Vec<SealedKey>),
    Signatures(Vec<Vec<u8>>),
    Mac([u8; 32]),
    PublicKey(Option<Vec<u8>>),
    Exists(bool),
    Done,
    DekBlobs(Vec<Vec<u8>>),
    Inventory(Vec<TokenObject>),
    Gone(VerifiedGone),
}

/// What a worker answers to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) result: Result<Reply, HsmError>,
    /// Session objects made so far by this process.
    pub(super) objects_made: u64,
    /// The worker has lost its token or log-in, or may not see what is on the token, and is to be replaced.
    pub(super) lost: bool,
}

/// The frame of `body`, zeroized when dropped: the first one carries the PIN.
pub(super) fn frame(body: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    // The exact size first: a growing buffer would leave copies of the PIN behind.
    let size = postcard::experimental::serialized_size(body).map_err(invalid)?;
    let mut bytes = Zeroizing::new(vec![0; 4 + size]);
    let length = u32::try_from(size).ok().filter(|_| size <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "frame too long"))?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    postcard::to_slice(body, &mut bytes[4..]).map_err(invalid)?;
    Ok(bytes)
}

/// The body's length, as announced by the first four bytes of a frame.
pub(super) fn body_length(header: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_be_bytes(header))
        .ok()
        .filter(|&length| length <= MAX_FRAME)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "frame too long"))
}

/// The value in a frame's body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    postcard::from_bytes(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one frame.
pub(super) fn write_frame(stream: &mut impl Write, body: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame(body)?)
}

/// Reads one frame; an end of the stream is [`io::ErrorKind::UnexpectedEof`].
pub(super) fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut body = Zeroizing::new(vec![0; body_length(header)?]);
    stream.read_exact(&mut body)?;
    parse(&body)
}
