//! A controller's life: store, sockets, signals.

use core::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::transport::Server;

use super::access::Porter;
use super::door::{self, PATIENCE};
use super::hub::{self, Hub};
use super::write::{self, Wish};
use super::{ControllerConfig, ControllerError, EtcdFiles, StoreAt, claims, compact};
use crate::control;
use crate::model::{Edit, Topology};
use crate::store::{self, Store};
use crate::tls;

/// How often a silent client is asked whether it lives, and how long the answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Turns of tasks between two looks at the sockets: a thousand agents that come at once must be heard, each within the
/// seconds that it takes for a sign of life, while views are made for others.
const EVENT_INTERVAL: u32 = 8;
/// Calls that one connection may have open at once: an agent has two, a command one.
const CALLS_MAX: u32 = 64;

/// Runs the controller until SIGTERM or SIGINT. What it told its nodes stays as it is.
///
/// # Errors
/// When it cannot begin, or a socket fails. An etcd that does not answer is waited for; who asks meanwhile is told so.
pub fn run(config: &ControllerConfig) -> Result<(), ControllerError> {
    let parents = [
        config.socket.parent(),
        match &config.store {
            StoreAt::File(path) => path.parent(),
            StoreAt::Etcd { .. } => None,
        },
    ];
    for dir in parents.into_iter().flatten() {
        std::fs::create_dir_all(dir)
            .map_err(|source| ControllerError::Directory { path: dir.to_path_buf(), source })?;
    }
    control::raise_descriptor_limit();
    let system = |what: &str, source| ControllerError::System { what: what.to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build();
    let runtime = runtime.map_err(|source| system("start its event loop", source))?;
    runtime.block_on(live(config))
}

async fn live(config: &ControllerConfig) -> Result<(), ControllerError> {
    let failed = |source| ControllerError::System { what: "handle signals".to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let hub = Hub::new(open(&config.store)?);
    let (fail, mut failures) = mpsc::channel::<ControllerError>(1);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(error) = failures.recv() => Err(error),
        Err(error) = serve(config, &hub, &fail) => Err(error),
    };
    // Gone already is as good.
    let _gone = std::fs::remove_file(&config.socket);
    tracing::info!("the controller ends; what its nodes hold stays");
    ended
}

/// Serves as soon as the store was read; while it cannot be, whoever asks is told so.
async fn serve(
    config: &ControllerConfig,
    hub: &Arc<Hub>,
    fail: &mpsc::Sender<ControllerError>,
) -> Result<Infallible, ControllerError> {
    let early = if hub.open_if_there().await? {
        None
    } else {
        let lock = listen(config, hub, fail).await?;
        hub.wait_for_store().await?;
        Some(lock)
    };
    let work = async {
        if let Some(path) = &config.apply {
            begin_with(hub, path).await?;
        }
        hub.serve();
        let _lock = match early {
            Some(lock) => lock,
            None => listen(config, hub, fail).await?,
        };
        let (socket, listen) = (config.socket.display(), &config.listen);
        tracing::info!(%socket, ?listen, revision = hub.world().revision, "the controller serves");
        Ok(compact::keep(&hub.store).await)
    };
    tokio::select! {
        never = hub::follow(hub) => match never {},
        never = claims::keep(hub) => match never {},
        ended = work => ended,
    }
}

/// Opens every way in. What is returned keeps others from the socket.
async fn listen(
    config: &ControllerConfig,
    hub: &Arc<Hub>,
    fail: &mpsc::Sender<ControllerError>,
) -> Result<std::fs::File, ControllerError> {
    let lock = serve_socket(config, hub, fail)?;
    for address in &config.listen {
        serve_tls(config, *address, hub, fail).await?;
    }
    Ok(lock)
}

fn open(at: &StoreAt) -> Result<Store, ControllerError> {
    let (endpoints, files) = match at {
        StoreAt::File(path) => return Ok(Store::open_embedded(path)?),
        StoreAt::Etcd { endpoints, tls } => (endpoints, tls),
    };
    let parts = |EtcdFiles { ca, identity }: &EtcdFiles| {
        let ca = tls::certificate(ca, "say with --etcd-ca where the certificate is that vouches for etcd's members")?;
        let identity = identity.as_ref().map(|(certificate, key)| {
            let own = tls::certificate(certificate, "say with --etcd-cert where the certificate for etcd is")?;
            let key = tls::key(key, "say with --etcd-key where the key of --etcd-cert is")?;
            Ok::<_, tls::TlsError>((own.into_bytes(), key.into_bytes()))
        });
        Ok::<_, tls::TlsError>(store::Tls { ca: ca.into_bytes(), identity: identity.transpose()? })
    };
    let tls = files.as_ref().map(parts).transpose()?;
    Ok(Store::open_etcd(endpoints, tls.as_ref())?)
}

/// Applies a topology file, before anybody can ask.
async fn begin_with(hub: &Arc<Hub>, path: &Path) -> Result<(), ControllerError> {
    let told = |error: &dyn core::fmt::Display| ControllerError::Topology(error.to_string());
    let text = std::fs::read_to_string(path)
        .map_err(|source| ControllerError::System { what: format!("read {}", path.display()), source })?;
    let topology = Topology::parse(&text, &path.display().to_string()).map_err(|error| told(&error))?;
    let edits = topology.resources().into_iter().map(Edit::put).collect();
    let wish = Wish { edits, underlay: Some(topology.underlay().clone()) };
    write::apply(hub, Arc::new(wish), false).await.map_err(|error| told(&error))?;
    Ok(())
}

fn router(server: Server, hub: &Arc<Hub>) -> tonic::transport::server::Router {
    server
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(CALLS_MAX)
        .add_service(Porter::new(hub))
}

/// Serves the unix socket. What is returned keeps others from it.
fn serve_socket(
    config: &ControllerConfig,
    hub: &Arc<Hub>,
    fail: &mpsc::Sender<ControllerError>,
) -> Result<std::fs::File, ControllerError> {
    let (listener, lock) = control::listen(&config.socket)?;
    let place = format!("socket {}", config.socket.display());
    let system = |source| ControllerError::System { what: format!("serve its {place}"), source };
    listener.set_nonblocking(true).map_err(system)?;
    let listener = UnixListener::from_std(listener).map_err(system)?;
    let incoming = door::guests(listener, Arc::clone(hub), PATIENCE);
    let (router, fail) = (router(Server::builder(), hub), fail.clone());
    tokio::spawn(async move {
        let ended = router.serve_with_incoming(incoming).await;
        let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
        // Another failure may have ended the controller first.
        let _first = fail.send(ControllerError::Serve { place, why }).await;
    });
    Ok(lock)
}

async fn serve_tls(
    config: &ControllerConfig,
    address: SocketAddr,
    hub: &Arc<Hub>,
    fail: &mpsc::Sender<ControllerError>,
) -> Result<(), ControllerError> {
    let place = format!("address {address}");
    let tls = tls::server_config(&config.certs)?;
    let serve = |why: String| ControllerError::Serve { place: place.clone(), why };
    let server = Server::builder().tls_config(tls).map_err(|error| serve(error.to_string()))?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ControllerError::System { what: format!("listen at {address}"), source })?;
    let incoming = door::guests(listener, Arc::clone(hub), PATIENCE);
    let (router, fail) = (router(server, hub), fail.clone());
    tokio::spawn(async move {
        let ended = router.serve_with_incoming(incoming).await;
        let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
        let _first = fail.send(ControllerError::Serve { place, why }).await;
    });
    Ok(())
}
