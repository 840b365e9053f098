//! The listener: from an accepted socket to HTTP/1.1, over TLS where there is a certificate, and within bounds.
//!
//! actix's own `HttpServer` bounds the head of a connection's first request and nothing after it; here every connection
//! is guarded as long as it lasts ([`Guarded`]).

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServiceResponse};
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::guarded::{Bounds, Guarded};
use crate::config::HttpConfig;
use crate::tls::ServerTls;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for its first request's head, at most.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay open without a request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client that is told goodbye may take to hear it.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long running requests are waited for at the end, seconds.
const SHUTDOWN_TIMEOUT_S: u64 = 10;

/// A server that is not running yet; it does not listen to signals.
///
/// # Errors
/// The listener cannot be used.
pub(super) fn open<F, I, S, B>(
    listener: TcpListener,
    http: &HttpConfig,
    tls: Option<Arc<ServerTls>>,
    app: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, actix_http::Request>,
    S: ServiceFactory<
            actix_http::Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
    S::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    let request = Duration::from_secs(http.request_timeout_s.into());
    let bounds = Bounds { request, idle: KEEP_ALIVE + Duration::from_secs(5) };
    let head_timeout = HEAD_TIMEOUT.min(request / 2);
    let mut server = Server::build()
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
        .max_concurrent_connections(http.max_connections);
    if let Some(workers) = http.workers {
        server = server.workers(workers);
    }
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("api", listener, move || {
        let (tls, stopping) = (tls.clone(), stopping.clone());
        let app = map_config(app().into_factory().map_err(|error| error.error_response()), |()| AppConfig::default());
        let http = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(head_timeout)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .local_addr(address)
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .finish(app);
        fn_service(move |socket: TcpStream| {
            let tls = tls.clone();
            async move { accept(socket, tls.as_deref(), bounds).await.map_err(Refused::Handshake) }
        })
        .and_then(http.map_err(Refused::Http))
    })?;
    Ok(server.run())
}

/// Why a connection ended. actix keeps it to itself.
#[derive(Debug)]
enum Refused {
    /// Before the first request.
    Handshake(#[allow(dead_code, reason = "for a debugger's eyes")] io::Error),
    /// In the middle.
    Http(#[allow(dead_code, reason = "for a debugger's eyes")] actix_http::error::DispatchError),
}

async fn accept(
    socket: TcpStream,
    tls: Option<&ServerTls>,
    bounds: Bounds,
) -> io::Result<(Guarded<Socket>, Protocol, Option<std::net::SocketAddr>)> {
    socket.set_nodelay(true)?;
    let peer = socket.peer_addr().ok();
    let socket = match tls {
        None => Socket::Plain(socket),
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls.config()).accept(socket);
            Socket::Tls(Box::new(timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??))
        }
    };
    Ok((Guarded::new(socket, bounds), Protocol::Http1, peer))
}

/// A connection with or without TLS.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
