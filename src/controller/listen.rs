//! A controller's life: store, sockets, signals.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

use super::hub::{self, Hub};
use super::service::Service;
use super::write::{self, Wish};
use super::{ControllerConfig, ControllerError, StoreAt};
use crate::control;
use crate::model::{Edit, Topology};
use crate::rpc::MESSAGE_MAX;
use crate::rpc::proto::controller_server::ControllerServer;
use crate::store::Store;
use crate::tls;

/// How often a silent client is asked whether it lives, and how long the answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Calls that one connection may have open at once.
const CALLS_MAX: u32 = 1_024;

/// Runs the controller until SIGTERM or SIGINT. What it told its nodes stays as it is.
///
/// # Errors
/// When it cannot begin, or a socket fails. A store that goes away later is waited for.
pub fn run(config: &ControllerConfig) -> Result<(), ControllerError> {
    let parents = [
        config.socket.parent(),
        match &config.store {
            StoreAt::File(path) => path.parent(),
            StoreAt::Etcd(_) => None,
        },
    ];
    for dir in parents.into_iter().flatten() {
        std::fs::create_dir_all(dir)
            .map_err(|source| ControllerError::Directory { path: dir.to_path_buf(), source })?;
    }
    control::raise_descriptor_limit();
    let system = |what: &str, source| ControllerError::System { what: what.to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| system("start its event loop", source))?;
    runtime.block_on(live(config))
}

async fn live(config: &ControllerConfig) -> Result<(), ControllerError> {
    let failed = |source| ControllerError::System { what: "handle signals".to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let store = match &config.store {
        StoreAt::File(path) => Store::open_embedded(path)?,
        StoreAt::Etcd(endpoints) => Store::open_etcd(endpoints, None)?,
    };
    let hub = Hub::open(store).await?;
    let following = {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move { hub::follow(&hub).await })
    };
    if let Some(path) = &config.apply {
        begin_with(&hub, path).await?;
    }
    let (fail, mut failures) = mpsc::channel::<ControllerError>(1);
    let _lock = serve_socket(config, &hub, &fail)?;
    for address in &config.listen {
        serve_tls(config, *address, &hub, &fail).await?;
    }
    tracing::info!(socket = %config.socket.display(), listen = ?config.listen, revision = hub.world().revision, "the controller serves");
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(error) = failures.recv() => Err(error),
    };
    following.abort();
    // Gone already is as good.
    let _gone = std::fs::remove_file(&config.socket);
    tracing::info!("the controller ends; what its nodes hold stays");
    ended
}

/// Applies a topology file, before anybody can ask.
async fn begin_with(hub: &Hub, path: &Path) -> Result<(), ControllerError> {
    let told = |error: &dyn core::fmt::Display| ControllerError::Topology(error.to_string());
    let text = std::fs::read_to_string(path)
        .map_err(|source| ControllerError::System { what: format!("read {}", path.display()), source })?;
    let topology = Topology::parse(&text, &path.display().to_string()).map_err(|error| told(&error))?;
    let edits = topology.resources().into_iter().map(Edit::put).collect();
    let wish = Wish { edits, underlay: Some(topology.underlay().clone()) };
    write::apply(hub, &wish, false).await.map_err(|error| told(&error))?;
    Ok(())
}

fn router(server: Server, hub: &Arc<Hub>) -> tonic::transport::server::Router {
    let service = ControllerServer::new(Service { hub: Arc::clone(hub) })
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    server
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(CALLS_MAX)
        .tcp_nodelay(true)
        .add_service(service)
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
    let incoming = UnixListenerStream::new(UnixListener::from_std(listener).map_err(system)?);
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
    let (router, fail) = (router(server, hub), fail.clone());
    tokio::spawn(async move {
        let ended = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
        let why = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
        let _first = fail.send(ControllerError::Serve { place, why }).await;
    });
    Ok(())
}
