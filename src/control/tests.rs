//! Client and server against each other.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{CLIENT_LIMIT, Client, ControlError, Reply, Server, ServerError, Service, Stopper};
use crate::api::switch::Request;
use crate::api::{Refusal, VERSION};

const LONG: Duration = Duration::from_secs(60);
const HELLO: Request = Request::Hello { version: VERSION };

/// Answers a hello with its version, a question for a bridge with its name, refuses `Show`.
struct Echo;

impl Service for Echo {
    type Request = Request;

    fn greeting(&self, request: &Request) -> Option<u32> {
        if let Request::Hello { version } = request { Some(*version) } else { None }
    }

    fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        if let Request::Fdb { bridge } = &request {
            return Ok(Reply::of(bridge));
        }
        match self.greeting(&request) {
            Some(version) => Ok(Reply::of(&version)),
            None => Err(Refusal { message: "there is nothing to show".to_owned(), code: "empty".to_owned() }),
        }
    }
}

/// A socket of its own in a directory of its own, served until dropped.
struct Served {
    directory: PathBuf,
    stopper: Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Served {
    fn new(test: &str) -> Self {
        Self::with_idle_limit(test, LONG)
    }

    fn with_idle_limit(test: &str, idle_limit: Duration) -> Self {
        let directory = std::env::temp_dir().join(format!("dvr-control-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let server = Server::bind(&directory.join("switch.sock")).expect("nobody else is here");
        let server = server.with_idle_limit(idle_limit);
        let stopper = server.stopper();
        let thread = thread::spawn(move || server.serve(&Arc::new(Echo)).expect("accepting works"));
        Self { directory, stopper, thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("switch.sock")
    }

    fn stop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends in order");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn fdb(bridge: &str) -> Request {
    Request::Fdb { bridge: bridge.parse().expect("a legal name") }
}

fn too_long() -> Request {
    let flow = "x".repeat(crate::api::LINE_LIMIT);
    Request::Trace { bridge: "a".parse().expect("a name"), flow, frame: None, generate: false }
}

#[test]
fn asks_and_is_answered_and_refused_in_one_conversation() {
    let served = Served::new("dialogue");
    let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
    assert_eq!(client.call::<_, u32>(&HELLO).expect("it answers"), VERSION);
    let refused = client.call::<_, ()>(&Request::Show).expect_err("it refuses");
    assert_eq!(refused.refusal().map(|refusal| refusal.code.as_str()), Some("empty"));
    assert_eq!(refused.to_string(), "there is nothing to show");
    assert_eq!(client.call::<_, String>(&fdb("br-int")).expect("a refusal does not end it"), "br-int");
}

/// Input: three requests, one of them refused, before any answer is read; then a call between a request and its answer, and
/// an answer too many. Output: answers in the order of requests; what is out of step is refused here and harms nothing.
#[test]
fn several_requests_are_answered_in_their_order() {
    let served = Served::new("several");
    let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
    client.begin(&HELLO).expect("it takes it");
    client.begin(&Request::Show).expect("it takes it");
    client.begin(&fdb("a")).expect("it takes it");
    assert!(matches!(client.begin(&too_long()), Err(ControlError::TooLong { .. })), "and nothing of it is sent");
    assert_eq!(client.end::<u32>().expect("it answers"), VERSION);
    assert!(matches!(client.call::<_, String>(&fdb("b")), Err(ControlError::Broken { .. })));
    assert!(client.end::<String>().expect_err("it refuses").refusal().is_some());
    assert_eq!(client.end::<String>().expect("it answers"), "a");
    assert!(matches!(client.end::<String>(), Err(ControlError::Broken { .. })));
    assert_eq!(client.call::<_, String>(&fdb("b")).expect("the conversation goes on"), "b");
}

#[test]
fn hello_comes_first_and_of_the_same_version() {
    let served = Served::new("hello");
    let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
    for request in [fdb("br-int"), Request::Hello { version: VERSION + 1 }, fdb("br-int")] {
        let refused = client.call::<_, String>(&request).expect_err("not greeted");
        assert_eq!(refused.refusal().map(|refusal| refusal.code.as_str()), Some("version"), "{request:?}");
    }
    assert_eq!(client.call::<_, u32>(&HELLO).expect("late, not too late"), VERSION);
    assert_eq!(client.call::<_, String>(&fdb("a")).expect("greeted"), "a");
}

#[test]
fn nonsense_is_refused_and_the_conversation_goes_on() {
    let served = Served::new("nonsense");
    let mut stream = UnixStream::connect(served.socket()).expect("it listens");
    stream.write_all(b"{\"op\":\"fly\"}\n\xff\n").expect("it reads");
    let hello = serde_json::to_string(&HELLO).expect("it can be told");
    stream.write_all(format!("{hello}\nhalf a li").as_bytes()).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("still connected");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("it answers in text");
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines.len(), 3, "{answers}");
    assert!(lines[0].contains("bad-request") && lines[1].contains("bad-request"), "{answers}");
    assert_eq!(lines[2], format!("{{\"ok\":{VERSION}}}"));
}

#[test]
fn an_answer_of_another_kind_ends_the_conversation() {
    let served = Served::new("kind");
    let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
    let wrong = client.call::<_, String>(&HELLO).expect_err("a number is no text");
    assert!(matches!(wrong, ControlError::Protocol { what: "the answer", .. }), "{wrong}");
    assert!(matches!(client.call::<_, u32>(&HELLO), Err(ControlError::Broken { .. })));
}

#[test]
fn one_client_too_many_is_turned_away_and_a_place_freed_is_given_again() {
    let served = Served::new("limit");
    let greet = || {
        let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
        client.call::<_, u32>(&HELLO).map(|_| client)
    };
    let mut seated: Vec<Client> = (0..CLIENT_LIMIT).map(|_| greet().expect("there is a place")).collect();
    let refused = greet().expect_err("all places are taken");
    assert_eq!(refused.refusal().map(|refusal| refusal.code.as_str()), Some("limit"), "{refused}");
    seated.pop();
    // The place is free once the server's thread has seen the end of the conversation.
    while greet().is_err() {
        thread::yield_now();
    }
}

#[test]
fn idle_clients_make_room_the_longest_idle_first() {
    let served = Served::with_idle_limit("idle", Duration::ZERO);
    let greet = || {
        let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
        client.call::<_, u32>(&HELLO).map(|_| client)
    };
    let mut silent: Vec<UnixStream> =
        (0..CLIENT_LIMIT - 1).map(|_| UnixStream::connect(served.socket()).expect("it listens")).collect();
    let mut first = greet().expect("the last place");
    let mut second = greet().expect("that of a client that never asked");
    assert_eq!(first.call::<_, String>(&fdb("a")).expect("others were idle for longer"), "a");
    assert_eq!(silent[0].read(&mut [0]).expect("an end in order"), 0, "the first that came goes first");
    for _ in &silent {
        second = greet().expect("another's place");
    }
    assert_eq!(second.call::<_, String>(&fdb("b")).expect("it has just come"), "b");
}

#[test]
fn a_request_too_long_is_told_so_and_not_sent() {
    let served = Served::new("long");
    let mut client = Client::connect(&served.socket(), LONG).expect("it listens");
    client.call::<_, u32>(&HELLO).expect("it answers");
    let long = client.call::<_, String>(&too_long()).expect_err("it is too long");
    assert!(matches!(long, ControlError::TooLong { octets, .. } if octets > crate::api::LINE_LIMIT), "{long}");
    assert_eq!(client.call::<_, String>(&fdb("c")).expect("the conversation goes on"), "c");
}

#[test]
fn who_is_not_there_is_named_with_the_way_to_start_it() {
    let mut served = Served::new("absent");
    served.stop();
    let absent = Client::connect(&served.socket(), LONG).expect_err("the socket went with the server");
    assert!(absent.is_absent());
    let text = absent.to_string();
    assert!(text.contains("dvr switch --run-dir") && text.contains("switch.sock"), "{text}");
    // A dead daemon's socket refuses; a new daemon takes its place.
    let left = served.directory.join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).expect("a free name"));
    assert!(Client::connect(&left, LONG).expect_err("nobody listens").is_absent());
    drop(Server::bind(&left).expect("the dead one's socket is replaced"));
    assert!(!Path::new(&left).exists(), "it removes its socket");
}

#[test]
fn two_daemons_cannot_share_a_socket() {
    let served = Served::new("taken");
    let taken = Server::bind(&served.socket()).expect_err("one serves it");
    assert!(matches!(taken, ServerError::Taken { .. }), "{taken}");
    assert!(Client::connect(&served.socket(), LONG).is_ok(), "the first is not disturbed");
}

#[test]
fn an_unanswered_question_times_out() {
    let directory = std::env::temp_dir().join(format!("dvr-control-mute-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let socket = directory.join("agent.sock");
    let mute = std::os::unix::net::UnixListener::bind(&socket).expect("a free name");
    let mut client = Client::connect(&socket, Duration::from_millis(1)).expect("the kernel accepts for it");
    let late = client.call::<_, u32>(&HELLO).expect_err("nobody answers");
    assert!(matches!(late, ControlError::TimedOut { .. }), "{late}");
    drop(mute);
    std::fs::remove_dir_all(&directory).expect("it is ours");
}
