//! Certificate profiles: reviewed files in `profiles/` beside the configuration.

use crate::broker::BrokerError;
use crate::ca::Profile;
use crate::nfv::ProfileName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The profiles that were read last.
#[derive(Debug, Default)]
pub(super) struct Profiles(BTreeMap<ProfileName, (String, Arc<Profile>)>);

impl Profiles {
    /// Reads every `*.toml` in `profiles/`; a missing folder is an error: `init` makes it.
    pub(super) fn read(directory: &Path) -> Result<Self, BrokerError> {
        let folder = directory.join("profiles");
        let failed = |problem: String| BrokerError::Precondition(format!("{}: {problem}", folder.display()));
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| failed(format!("cannot be read ({error}); `keybroker init` makes it")))?;
        let mut profiles = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(error.to_string()))?.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let of_file =
                |problem: String| BrokerError::Precondition(format!("{}: {problem}", path.display()));
            let name: ProfileName = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default()
                .parse()
                .map_err(|error| of_file(format!("{error}")))?;
            let text = std::fs::read_to_string(&path).map_err(|error| of_file(error.to_string()))?;
            let profile = Profile::parse(name.clone(), &text).map_err(|error| of_file(error.to_string()))?;
            profiles.insert(name, (text, Arc::new(profile)));
        }
        Ok(Self(profiles))
    }

    /// A profile by name.
    pub(super) fn get(&self, name: &ProfileName) -> Option<Arc<Profile>> {
        self.0.get(name).map(|(_, profile)| Arc::clone(profile))
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Profile>> {
        self.0.values().map(|(_, profile)| Arc::clone(profile)).collect()
    }

    /// The text of a profile.
    pub(super) fn text(&self, name: &ProfileName) -> Option<String> {
        self.0.get(name).map(|(text, _)| text.clone())
    }

    /// Names and texts.
    pub(super) fn texts(&self) -> Vec<(ProfileName, String)> {
        self.0.iter().map(|(name, (text, _))| (name.clone(), text.clone())).collect()
    }
}

/// The file of a profile.
pub(super) fn file(directory: &Path, name: &ProfileName) -> PathBuf {
    directory.join("profiles").join(format!("{name}.toml"))
}
