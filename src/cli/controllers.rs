//! Which controller a command means, and the way to it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::Status;

use super::controller_args::WhichController;
use super::error::CliError;
use crate::controller::ControllerConfig;
use crate::lab::{self, Lab, Labs, Record};
use crate::rpc::proto::{Item, ListRequest};
use crate::rpc::{Address, Addresses, Client, RpcError, connect};
use crate::tls::{self, Identity};

/// How long a controller may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A controller that answers.
pub(super) struct Desk {
    runtime: Runtime,
    pub(super) client: Client,
    address: Address,
    /// The lab it is the controller of.
    pub(super) lab: Option<(Lab, Record)>,
}

/// A controller that was looked for, and what came of it.
pub(super) type Reached = (Address, Result<Desk, CliError>);

impl Desk {
    /// The controller a command means: the one it names; else the lab's it names; else this host's; else that of the only
    /// lab that runs.
    ///
    /// # Errors
    /// When there is none, or it cannot be reached.
    pub(super) fn find(at: &WhichController) -> Result<Self, CliError> {
        let (addresses, lab) = meant(at)?;
        Self::open(&addresses, lab, at)
    }

    /// All controllers a command means, each on its own, or why it cannot be reached.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn each(at: &WhichController) -> Result<Vec<Reached>, CliError> {
        let (addresses, _) = meant(at)?;
        let open = |address: &Address| (address.clone(), Self::open(&address.clone().into(), None, at));
        Ok(addresses.all().iter().map(open).collect())
    }

    fn open(addresses: &Addresses, lab: Option<(Lab, Record)>, at: &WhichController) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::Ended(format!("cannot start an event loop: {error}")))?;
        let opened = runtime.block_on(open(addresses, at)).map_err(|error| match (error, &lab) {
            (CliError::Controller(error), Some((lab, _))) if error.is_absent() => CliError::Absent(format!(
                "the controller of lab `{0}` is not running: start it with `dvr lab restart controller --name {0}`",
                lab.name
            )),
            (error, _) => error,
        });
        let (address, client) = opened?;
        Ok(Self { runtime, client, address, lab })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the controller refused, or that it does not answer.
    pub(super) fn ask<T>(&mut self, call: impl AsyncFnOnce(&mut Client) -> Result<T, Status>) -> Result<T, CliError> {
        let client = &mut self.client;
        let answered = self.runtime.block_on(async { tokio::time::timeout(LIMIT, call(client)).await });
        let answered = answered.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!(
                "the controller at {} has not answered for {} s",
                self.address,
                LIMIT.as_secs()
            )))
        });
        answered.map_err(|status| RpcError::of(&self.address, &status).into())
    }

    /// As [`Self::ask`], for calls without an end.
    ///
    /// # Errors
    /// Whatever ended it.
    pub(super) fn attend<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Client) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        self.runtime.block_on(call(&mut self.client))
    }

    /// What a failed call means.
    pub(super) fn failure(address: &Address, status: &Status) -> CliError {
        RpcError::of(address, status).into()
    }

    /// Where it is.
    pub(super) fn address(&self) -> Address {
        self.address.clone()
    }

    /// What is desired of a kind, or of all (`""`), with the revision it is of.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn list(&mut self, kind: &str, name: &str) -> Result<(u64, Vec<Item>), CliError> {
        let request = ListRequest { kind: kind.to_owned(), name: name.to_owned() };
        self.ask(async |client| {
            let mut stream = client.list(request).await?.into_inner();
            let (mut revision, mut items) = (0, Vec::new());
            while let Some(mut reply) = stream.message().await? {
                revision = reply.revision;
                items.append(&mut reply.items);
            }
            Ok((revision, items))
        })
    }
}

/// Where the controllers are that a command means, and the lab that they are of.
fn meant(at: &WhichController) -> Result<(Addresses, Option<(Lab, Record)>), CliError> {
    Ok(match (&at.controller, &at.name) {
        (Some(addresses), _) => (addresses.clone(), None),
        (None, None) if let Some(socket) = own_socket() => (Address::Unix(socket).into(), None),
        (None, name) => {
            let (lab, record) = Labs::of_this_user()?.choose(name.as_ref())?;
            (lab.controllers(), Some((lab, record)))
        }
    })
}

/// The socket of this host's controller; inside a lab's node, that of the lab's.
fn own_socket() -> Option<PathBuf> {
    let dirs = [lab::RUN_DIR, lab::CONTROLLER_DIR];
    dirs.into_iter().map(|dir| PathBuf::from(dir).join(ControllerConfig::SOCKET)).find(|socket| socket.exists())
}

async fn open(addresses: &Addresses, at: &WhichController) -> Result<(Address, Client), CliError> {
    let tls = if addresses.need_tls() {
        let identity = Identity::Client(at.identity.clone());
        Some(tls::client_config(&at.certs, &identity).map_err(|error| CliError::Usage(error.to_string()))?)
    } else {
        None
    };
    let mut first = None;
    for address in addresses.all() {
        match connect(address, tls.as_ref()).await {
            Ok(client) => return Ok((address.clone(), client)),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.map_or_else(|| unreachable!("there is at least one address"), CliError::Controller))
}
