//! The cheapest HTTP client that there is: one connection that is kept, one prepared GET, an answer with its length said.
//!
//! What asks must cost next to nothing, because it runs on the machine that it measures, and on both sides of a ratio.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::super::BenchError;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Http {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(64 * 1024) })
    }

    /// One GET; status and body.
    ///
    /// # Errors
    /// The connection's, or an answer that is not understood.
    pub(crate) async fn get(&mut self, path: &str, token: Option<&str>) -> io::Result<(u16, &[u8])> {
        self.ask(&request(path, token)).await
    }

    /// Sends a prepared request; status and body.
    ///
    /// # Errors
    /// The connection's, or an answer that is not understood.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.read.clear();
        let (status, head, length) = loop {
            self.more().await?;
            if let Some(known) = head(&self.read)? {
                break known;
            }
        };
        while self.read.len() < head + length {
            self.more().await?;
        }
        Ok((status, &self.read[head..head + length]))
    }

    async fn more(&mut self) -> io::Result<()> {
        match timeout(ANSWER_MAX, self.stream.read_buf(&mut self.read)).await {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(drop),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A GET in bytes.
pub(crate) fn request(path: &str, token: Option<&str>) -> Vec<u8> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{token}\r\n").into_bytes()
}

/// Status, length of the head and length of the body, when the head is complete.
fn head(read: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "an HTTP answer without status or length");
    let text = std::str::from_utf8(&read[..end]).map_err(|_| odd())?;
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(odd)?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Ok(Some((status, end + 4, length.ok_or_else(odd)?)))
}

/// How many of these requests are answered in a second over `connections` kept connections, `during` so long. All must be
/// answered with 200.
///
/// # Errors
/// An answer is another one, or none.
pub(crate) async fn rate(
    address: SocketAddr,
    requests: &[Vec<u8>],
    connections: usize,
    during: Duration,
) -> Result<f64, BenchError> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Http::open(address).await.map_err(BenchError::io("connecting"))?);
    }
    let begin = Instant::now();
    let asking = open.into_iter().enumerate().map(|(number, mut http)| {
        let requests = requests.to_vec();
        tokio::spawn(async move {
            let mut answered = 0_u32;
            for request in requests.iter().cycle().skip(number) {
                if begin.elapsed() >= during {
                    break;
                }
                match http.ask(request).await {
                    Ok((200, _)) => answered += 1,
                    Ok((status, body)) => {
                        let text = String::from_utf8_lossy(body).into_owned();
                        return Err(BenchError::Odd(format!("answered with {status}: {text}")));
                    }
                    Err(error) => return Err(BenchError::io("asking")(error)),
                }
            }
            Ok(answered)
        })
    });
    let mut all = 0_u32;
    for answered in asking.collect::<Vec<_>>() {
        all += answered.await.map_err(BenchError::odd("a task of the load"))??;
    }
    Ok(f64::from(all) / begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_length_and_waited_for_until_its_head_is_there() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        assert_eq!(head(whole).unwrap(), Some((200, whole.len() - 5, 5)));
        assert_eq!(head(&whole[..20]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "a body without an end cannot be waited for");
    }
}
