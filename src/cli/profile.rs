//! `keybroker profile`: what certificates look like.

use super::connection::{ConnectionArgs, request_id};
use super::failure::Failure;
use super::files;
use super::output::{Format, OutputArgs, line};
use crate::api::proto;
use crate::api::proto::admin_service_client::AdminServiceClient;
use crate::api::proto::{AddProfileRequest, ListProfilesRequest, RemoveProfileRequest};
use crate::nfv::ProfileName;
use serde_json::json;
use std::path::PathBuf;

/// What to do with certificate profiles.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ProfileCommand {
    /// Check a profile and install it; replaces one of the same name
    Add {
        /// The profile, TOML; its name is the file's without .toml
        file: PathBuf,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// List profiles
    List {
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Show one profile's text
    Show {
        /// Its name
        name: ProfileName,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Remove a profile that no pool uses
    Remove {
        /// Its name
        name: ProfileName,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

/// Runs the command.
pub(super) async fn run(command: ProfileCommand, output: OutputArgs) -> Result<(), Failure> {
    match command {
        ProfileCommand::Add { file, connection } => {
            let name: ProfileName = file
                .file_stem()
                .map(|stem| stem.to_string_lossy())
                .unwrap_or_default()
                .parse()
                .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
            let toml = String::from_utf8(files::read(&file)?)
                .map_err(|_| Failure::usage(format!("{} is not UTF-8", file.display())))?;
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let profile = Some(proto::Profile { name: name.to_string(), toml });
            client.add_profile(AddProfileRequest { request_id: request_id(), profile }).await?;
            output.object(&json!({ "name": name, "added": true }));
        }
        ProfileCommand::List { connection } => {
            let objects: Vec<_> = profiles(&connection)
                .await?
                .into_iter()
                .map(|profile| json!({ "name": profile.name, "toml": profile.toml }))
                .collect();
            output.list(&["name"], &objects);
        }
        ProfileCommand::Show { name, connection } => {
            let found = profiles(&connection).await?.into_iter().find(|found| found.name == name.as_str());
            let found = found.ok_or_else(|| Failure::failed(format!("profile {name} does not exist")))?;
            match output.format() {
                Format::Table => line(found.toml.trim_end()),
                Format::Json => output.object(&json!({ "name": found.name, "toml": found.toml })),
            }
        }
        ProfileCommand::Remove { name, connection } => {
            let mut client = AdminServiceClient::new(connection.connect().await?.channel);
            let request = RemoveProfileRequest { request_id: request_id(), name: name.to_string() };
            client.remove_profile(request).await?;
            output.object(&json!({ "name": name, "removed": true }));
        }
    }
    Ok(())
}

async fn profiles(connection: &ConnectionArgs) -> Result<Vec<proto::Profile>, Failure> {
    let mut client = AdminServiceClient::new(connection.connect().await?.channel);
    Ok(client.list_profiles(ListProfilesRequest {}).await?.into_inner().profiles)
}
