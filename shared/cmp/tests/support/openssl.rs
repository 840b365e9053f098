//! The `openssl cmp -port` mock server as a child process, and a tiny blocking HTTP client.

#![allow(dead_code, unreachable_pub)] // a module of test binaries, of which each uses its own part

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Killed when dropped, so also when a test fails.
pub struct MockServer {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl MockServer {
    /// Starts `openssl cmp -port 0` with more arguments; it says itself on which port it listens.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let log = folder.join("server.log");
        let errors = fs::File::create(&log).unwrap();
        let mut child = Command::new("openssl")
            .args(["cmp", "-config", "", "-port", "0"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("openssl is installed");
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, address: ([127, 0, 0, 1], 0).into(), log };
        // ACCEPT [::]:40123 PID=4711; the output ends when the process does
        let accept = output.lines().map_while(Result::ok).find(|line| line.starts_with("ACCEPT"));
        let port = accept.as_deref().and_then(|line| line.split_whitespace().nth(1)?.rsplit(':').next()?.parse().ok());
        match port {
            Some(port) => server.address.set_port(port),
            None => panic!("openssl cmp did not start: {accept:?} {}", server.log()),
        }
        server
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Posts a message and returns the content of the answer, whatever its HTTP status.
    pub fn post(&self, message: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "POST /pkix/ HTTP/1.1\r\nHost: {}\r\nContent-Type: application/pkixcmp\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            message.len()
        );
        stream.write_all(&[head.as_bytes(), message].concat()).unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(content) = content_of(&answer) {
                return content;
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => panic!("no whole answer: {answer:?} {}", self.log()),
                Ok(count) => answer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn connect(&self) -> TcpStream {
        let start = Instant::now();
        loop {
            match TcpStream::connect_timeout(&self.address, Duration::from_secs(5)) {
                Ok(stream) => return stream,
                Err(error) if start.elapsed() > Duration::from_secs(10) => panic!("{error}: {}", self.log()),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The content once it is complete, by its Content-Length.
fn content_of(answer: &[u8]) -> Option<Vec<u8>> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse::<usize>().ok()?;
    answer.get(end..end + length).map(<[u8]>::to_vec)
}

/// A folder for the files that openssl reads.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("trustfleet-cmp-").tempdir().unwrap()
}
