//! A controller of one node's view and nothing else: it tells what a test wants told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use dvr::model::view::{NodeView, ViewChange};
use dvr::rpc::proto::controller_server::{Controller, ControllerServer};
use dvr::rpc::proto::view_reply::What;
use dvr::rpc::proto::{
    ApplyReply, ApplyRequest, BeatReply, BeatRequest, ClaimReply, ClaimRequest, ListReply, ListRequest, Part,
    StatusReply, StatusRequest, ViewReply, ViewRequest, WatchReply, WatchRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

type Stream<T> = ReceiverStream<Result<T, Status>>;
type Told = Result<ViewReply, Status>;

struct State {
    view: NodeView,
    revision: u64,
    followers: Vec<mpsc::Sender<Told>>,
}

/// Messages that one agent may leave unread.
const UNREAD_MAX: usize = 4096;

/// It serves for as long as the process lives.
#[derive(Clone)]
pub(crate) struct OneView(Arc<Mutex<State>>);

impl OneView {
    /// Serves this view at `socket`.
    pub(crate) fn serve(socket: PathBuf, view: NodeView) -> Self {
        let this = Self(Arc::new(Mutex::new(State { view, revision: 1, followers: Vec::new() })));
        let listener = std::os::unix::net::UnixListener::bind(socket).expect("a free name");
        listener.set_nonblocking(true).expect("a sound socket");
        let service = ControllerServer::new(this.clone()).max_encoding_message_size(dvr::rpc::MESSAGE_MAX);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).expect("a sound socket");
                let served = tonic::transport::Server::builder().add_service(service);
                served.serve_with_incoming(UnixListenerStream::new(listener)).await.expect("accepting works");
            });
        });
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test thread panicked")
    }

    /// Whether an agent asked for the view.
    pub(crate) fn is_followed(&self) -> bool {
        !self.state().followers.is_empty()
    }

    /// Makes changes, and tells them in one message.
    pub(crate) fn tell(&self, changes: &[ViewChange]) {
        let mut state = self.state();
        state.revision += 1;
        assert!(changes.iter().cloned().all(|change| state.view.apply(change)), "networks come first");
        let what = Some(What::Changes(serde_json::to_vec(changes).expect("JSON")));
        let reply = ViewReply { epoch: "one".to_owned(), revision: state.revision, what };
        state.followers.retain(|follower| follower.try_send(Ok(reply.clone())).is_ok());
        assert!(!state.followers.is_empty(), "nobody listens");
    }

    /// What was told so far comes to this.
    pub(crate) fn view(&self) -> NodeView {
        self.state().view.clone()
    }
}

fn not_asked<T>() -> Result<T, Status> {
    Err(Status::unimplemented("an agent has no use for it"))
}

#[tonic::async_trait]
impl Controller for OneView {
    type ListStream = Stream<ListReply>;
    type WatchStream = Stream<WatchReply>;
    type ViewStream = Stream<ViewReply>;

    async fn view(&self, _: Request<ViewRequest>) -> Result<Response<Self::ViewStream>, Status> {
        let (sender, receiver) = mpsc::channel(UNREAD_MAX);
        let mut state = self.state();
        let octets = serde_json::to_vec(&state.view).expect("JSON");
        let parts = octets.chunks(dvr::rpc::PART_LEN);
        let count = parts.len();
        for (at, octets) in parts.enumerate() {
            let what = Some(What::Whole(Part { octets: octets.to_vec(), last: at + 1 == count }));
            let reply = ViewReply { epoch: "one".to_owned(), revision: state.revision, what };
            sender.try_send(Ok(reply)).expect("few parts");
        }
        state.followers.push(sender);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn beat(&self, _: Request<BeatRequest>) -> Result<Response<BeatReply>, Status> {
        Ok(Response::new(BeatReply { ttl_millis: 10_000 }))
    }

    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyReply>, Status> {
        not_asked()
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        not_asked()
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        not_asked()
    }

    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<ClaimReply>, Status> {
        not_asked()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        not_asked()
    }
}
