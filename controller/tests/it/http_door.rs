//! The HTTP door against clients that are slow, large or many: raw sockets at a real server, which refuses within its
//! bounds and goes on serving everybody else.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::api_house::House;

/// What a whole request may take in these tests, seconds; its head and its body half of it.
const REQUEST_S: u32 = 4;
/// Nothing here takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);
const PING: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

async fn house() -> House {
    House::open_with(|config| config.http.request_timeout_s = REQUEST_S).await
}

/// A house that serves one connection at a time: whoever else is answered proves that the one before is gone.
async fn house_with_one_seat() -> House {
    House::open_with(|config| {
        config.http.request_timeout_s = REQUEST_S;
        config.http.max_connections = 1;
    })
    .await
}

async fn connect(house: &House) -> TcpStream {
    TcpStream::connect(house.address()).await.unwrap()
}

/// Everything that comes until the end of the connection; a reset is an end as well.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut said)).await.expect("the server ends the connection");
    String::from_utf8_lossy(&said).into_owned()
}

async fn ask(house: &House, request: &[u8]) -> String {
    let mut stream = connect(house).await;
    // The server may refuse before it has read all.
    let _ = stream.write_all(request).await;
    rest(&mut stream).await
}

/// Sends a byte every tenth of a second until the server ends the connection; what it said.
async fn drip(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let dripping = async {
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(length) => said.extend_from_slice(&buffer[..length]),
                },
                () = sleep(Duration::from_millis(100)) => {
                    if stream.write_all(b"x").await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    timeout(LIMIT, dripping).await.expect("the server ends the connection");
    String::from_utf8_lossy(&said).into_owned()
}

/// Asks again and again while `slow` goes on: everybody else is served in between.
async fn others_are_served_during<T>(house: &House, slow: impl Future<Output = T>) -> T {
    tokio::pin!(slow);
    let mut served = 0;
    loop {
        tokio::select! {
            biased;
            result = &mut slow => {
                assert!(served >= 3, "{served} others were served");
                return result;
            }
            said = ask(house, PING) => {
                assert!(said.starts_with("HTTP/1.1 200"), "{said}");
                served += 1;
            }
        }
    }
}

fn head(answer: &str) -> &str {
    answer.split("\r\n\r\n").next().unwrap()
}

/// The problem document in an answer.
fn problem(answer: &str, status: u16, code: &str) -> Value {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(head(answer).contains("content-type: application/problem+json"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["code"], code, "{answer}");
    body
}

#[actix::test]
async fn a_head_that_drips_in_is_refused_with_408_while_others_are_served() {
    let house = house().await;
    let mut stream = connect(&house).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
    let start = Instant::now();
    let said = others_are_served_during(&house, drip(stream)).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    house.close().await;
}

#[actix::test]
async fn a_body_that_drips_in_is_refused_with_a_408_problem_while_others_are_served() {
    let house = house().await;
    let mut stream = connect(&house).await;
    let begin = "POST /agent/v1/challenge HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9000\r\n\r\n";
    stream.write_all(begin.as_bytes()).await.unwrap();
    let said = others_are_served_during(&house, drip(stream)).await;
    problem(&said, 408, "request_timeout");
    house.close().await;
}

#[actix::test]
async fn a_second_request_that_drips_in_does_not_hold_its_seat() {
    let house = house_with_one_seat().await;
    let mut stream = connect(&house).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
    let slow = tokio::spawn(drip(stream));
    let said = ask(&house, PING).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    slow.await.unwrap();
    house.close().await;
}

#[actix::test]
async fn a_body_that_nobody_asked_for_does_not_hold_its_seat() {
    let house = house_with_one_seat().await;
    for framing in ["content-length: 1073741824\r\n\r\n", "transfer-encoding: chunked\r\n\r\n40000000\r\n"] {
        let mut stream = connect(&house).await;
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{framing}").as_bytes()).await.unwrap();
        let slow = tokio::spawn(drip(stream));
        let said = ask(&house, PING).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{framing}: {said}");
        slow.await.unwrap();
    }
    house.close().await;
}

#[actix::test]
async fn an_answer_that_is_not_taken_does_not_hold_its_seat() {
    let house = house_with_one_seat().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(house.address().parse().unwrap()).await.unwrap();
    // More than all buffers on the way hold.
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(200);
    stream.write_all(&request).await.unwrap();
    let said = ask(&house, PING).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    house.close().await;
}

#[actix::test]
async fn connections_that_say_nothing_do_not_hold_their_seats() {
    let house = House::open_with(|config| {
        config.http.request_timeout_s = REQUEST_S;
        config.http.max_connections = 4;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(connect(&house).await);
    }
    let said = ask(&house, PING).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    house.close().await;
}

#[actix::test]
async fn a_head_beyond_its_bounds_is_refused_by_a_problem_that_names_them() {
    let house = house().await;
    let get =
        |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    let long = "x".repeat(17 * 1024);
    let answer = ask(&house, get("/healthz", &format!("cookie: {long}\r\n")).as_bytes()).await;
    let found = problem(&answer, 431, "headers_too_large");
    assert!(found["detail"].as_str().unwrap().contains("16384 bytes"), "{found}");
    let answer = ask(&house, get("/healthz", &"a: b\r\n".repeat(70)).as_bytes()).await;
    problem(&answer, 431, "headers_too_large");
    let answer = ask(&house, get(&format!("/healthz?{}", "y".repeat(9 * 1024)), "").as_bytes()).await;
    problem(&answer, 414, "uri_too_long");
    // What the parser itself refuses has no body.
    let answer = ask(&house, get("/healthz", &"a: b\r\n".repeat(5_000)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let endless = format!("GET /healthz HTTP/1.1\r\nx: {}", "z".repeat(200 * 1024));
    let answer = ask(&house, endless.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let both = "POST /agent/v1/challenge HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = ask(&house, both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(ask(&house, PING).await.starts_with("HTTP/1.1 200"));
    house.close().await;
}

#[actix::test]
async fn a_body_beyond_the_bounds_of_its_path_is_refused_and_not_read_to_its_end() {
    let house = house().await;
    let begin = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n",
            house.platform
        )
    };
    for (path, most) in
        [("/agent/v1/join", 16 * 1024), ("/v1/tenants", 64 * 1024), ("/v1/tenants/none/entities", 64 * 1024)]
    {
        let mut request = begin(path, most + 1).into_bytes();
        request.extend(vec![b' '; most + 1]);
        let answer = ask(&house, &request).await;
        if path.contains("none") {
            problem(&answer, 404, "not_found");
            continue;
        }
        let found = problem(&answer, 413, "body_too_long");
        assert!(found["detail"].as_str().unwrap().contains(&most.to_string()), "{found}");
    }

    // A terabyte is announced; the server lets go after a small part of it.
    let mut stream = connect(&house).await;
    stream.write_all(begin("/v1/tenants", 1 << 40).as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let (mut said, mut sent) = (Vec::new(), 0_usize);
    let both = async {
        let write = async {
            while writing.write_all(&[b' '; 65_536]).await.is_ok() {
                sent += 65_536;
            }
        };
        let read = async { while reading.read_buf(&mut said).await.is_ok_and(|length| length > 0) {} };
        tokio::join!(write, read);
    };
    timeout(LIMIT, both).await.expect("the server ends the connection");
    assert!(sent < 1 << 40, "{sent} bytes were taken");
    problem(&String::from_utf8_lossy(&said), 413, "body_too_long");
    house.close().await;
}

#[actix::test]
async fn a_body_nested_too_deep_is_refused_before_it_is_read_as_json() {
    let house = house().await;
    let deep = format!("{{\"name\":{}{}}}", "[".repeat(17), "]".repeat(17));
    let answer =
        house.raw("POST", "/v1/tenants", Some(&house.platform), &[], Some(deep.into_bytes())).await.expect(400);
    assert_eq!(answer.str("/code"), "too_deep");
    house.close().await;
}

#[actix::test]
async fn pipelined_requests_are_answered_in_their_order_and_on_the_same_connection() {
    let house = house().await;
    let mut stream = connect(&house).await;
    let mut requests = Vec::new();
    for number in 0..100 {
        let path = if number % 2 == 0 { "/healthz" } else { "/nothing" };
        requests.extend_from_slice(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    }
    requests.extend_from_slice(PING);
    stream.write_all(&requests).await.unwrap();
    let said = rest(&mut stream).await;
    let statuses: Vec<_> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    let expected: Vec<_> = (0..101).map(|number| if number % 2 == 0 { "200" } else { "404" }).collect();
    assert_eq!(statuses, expected);
    house.close().await;
}

#[actix::test]
async fn every_answer_is_to_be_left_alone_by_browsers_and_proxies_and_names_no_software() {
    let house = house().await;
    for (path, token) in [
        ("/healthz", None),
        ("/metrics", None),
        ("/openapi.json", None),
        ("/v1/tenants", None),
        ("/v1/tenants", Some(house.platform.as_str())),
        ("/nothing", None),
    ] {
        let answer = house.call("GET", path, token, None).await;
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        assert_eq!(header("cache-control").as_deref(), Some("no-store"), "{path}");
        assert_eq!((header("server"), header("x-powered-by")), (None, None), "{path}");
    }
    let docs = house.call("GET", "/docs/", None, None).await.expect(200);
    assert_eq!(docs.headers.get("x-content-type-options").unwrap(), "nosniff");
    house.close().await;
}
