//! A private RabbitMQ node with an epmd of its own, on free ports of 127.0.0.1.
//!
//! It is started by the script behind the distribution's wrapper (the wrapper changes the user), with every path below
//! one folder and a clean environment, so that it never meets the system's node or its files. epmd is our child too:
//! RabbitMQ would otherwise start one that outlives everybody.

use std::{env, fs, path::PathBuf, process::Command, sync::Arc, time::Duration};

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{
    PortReservation, StackError,
    keys::{KeyFiles, random_word, write_private},
    process::{Process, find_program, mortal, search_path},
    tls::TlsFiles,
};

const NAME: &str = "rabbitmq";
const USER: &str = "trustfleet";
/// The Erlang machine starts in 6 s on a quiet machine; builds and tests beside it make it slow.
const START_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_GRACE: Duration = Duration::from_secs(40);
/// Without it lapin takes 8 MB of memory for each connection.
const FRAME_MAX: u32 = 131_072;

/// The running (or just now stopped) node.
#[derive(Debug)]
pub struct Rabbit {
    script: PathBuf,
    epmd_program: PathBuf,
    dir: PathBuf,
    ports: Ports,
    _reserved: Vec<PortReservation>,
    password: String,
    mark: (&'static str, String),
    tls: Option<TlsFiles>,
    epmd: Option<Process>,
    node: Option<Process>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
    management: u16,
}

impl Rabbit {
    /// Makes the node's folder `dir` and starts it, trusting tokens signed by `keys.broker_token_key`.
    pub(super) async fn create(
        dir: PathBuf,
        mark: (&'static str, String),
        keys: &KeyFiles,
        tls: Option<TlsFiles>,
    ) -> Result<Self, StackError> {
        let script = server_script()?;
        let epmd_program = find_program("epmd", search_path())
            .ok_or(StackError::MissingProgram { program: "epmd", package: "rabbitmq-server" })?;
        let mut reserved = Vec::new();
        for _ in 0..4 {
            reserved.push(PortReservation::any()?);
        }
        reserved.iter_mut().for_each(PortReservation::open);
        let [amqp, distribution, epmd, management] = std::array::from_fn(|index| reserved[index].port());
        let ports = Ports { amqp, distribution, epmd, management };
        let password = random_word(16)?;
        let mut rabbit =
            Self { script, epmd_program, dir, ports, _reserved: reserved, password, mark, tls, epmd: None, node: None };
        rabbit.write_configuration(keys)?;
        rabbit.start().await?;
        Ok(rabbit)
    }

    /// The AMQP port on 127.0.0.1; the same after a stop and a start.
    pub const fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The administrator's AMQP URL, on the virtual host `/`.
    pub fn amqp_url(&self) -> Result<Url, StackError> {
        let authority = format!("{USER}:{}@127.0.0.1:{}", self.password, self.ports.amqp);
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        parsed(&format!("{scheme}://{authority}/%2F?frame_max={FRAME_MAX}"))
    }

    /// The administrator's URL of the management API (without a path).
    pub fn management_url(&self) -> Result<Url, StackError> {
        parsed(&format!("http://{USER}:{}@127.0.0.1:{}", self.password, self.ports.management))
    }

    /// Starts the node on its data and ports; does nothing when it runs.
    ///
    /// # Errors
    /// [`StackError::Exited`] or [`StackError::NotReady`] with the end of the node's output.
    pub async fn start(&mut self) -> Result<(), StackError> {
        if self.epmd.as_mut().is_none_or(|epmd| epmd.ended().is_some()) {
            let mut command = self.command(&self.epmd_program, "KILL");
            command.args(["-address", "127.0.0.1", "-port", &self.ports.epmd.to_string()]);
            self.epmd = Some(Process::spawn("epmd", command, &self.dir.join("epmd.log"), Signal::KILL)?);
        }
        if self.node.as_mut().is_some_and(|node| node.ended().is_none()) {
            return Ok(());
        }
        let command = self.command(&self.script, "TERM");
        // A throw-away node need not drain: the group is killed on drop.
        let mut node = Process::spawn(NAME, command, &self.dir.join("output.log"), Signal::KILL)?;
        let Ports { amqp, management, .. } = self.ports;
        node.until_ready(START_TIMEOUT, async || {
            (answers_amqp(amqp, self.tls.as_ref()).await && TcpStream::connect(("127.0.0.1", management)).await.is_ok())
                .then_some(())
        })
        .await?;
        self.node = Some(node);
        Ok(())
    }

    /// An orderly stop: connections are closed, durable queues and their persistent messages stay.
    pub async fn stop(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.stop(Signal::TERM, STOP_GRACE).await;
        }
    }

    /// The end by SIGKILL, as in a crash of the node.
    pub async fn crash(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.signal_group(Signal::KILL);
            node.wait(STOP_GRACE).await;
        }
    }

    fn write_configuration(&self, keys: &KeyFiles) -> Result<(), StackError> {
        fs::create_dir_all(&self.dir).map_err(StackError::io(format!("creating {}", self.dir.display())))?;
        let listener = match &self.tls {
            None => format!("listeners.tcp.1 = 127.0.0.1:{}\n", self.ports.amqp),
            Some(TlsFiles { ca, certificate, key }) => format!(
                "listeners.tcp = none\n\
                 listeners.ssl.1 = 127.0.0.1:{}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n\
                 ssl_options.versions.1 = tlsv1.3\n\
                 ssl_options.versions.2 = tlsv1.2\n\
                 ssl_options.verify = verify_none\n",
                self.ports.amqp,
                ca.display(),
                certificate.display(),
                key.display(),
            ),
        };
        let configuration = format!(
            "{listener}\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             auth_backends.1 = internal\n\
             auth_backends.2 = rabbit_auth_backend_oauth2\n\
             auth_oauth2.resource_server_id = trustfleet\n\
             auth_oauth2.default_key = k1\n\
             auth_oauth2.signing_keys.k1 = {public}\n\
             default_user = {USER}\n\
             default_pass = {password}\n\
             default_user_tags.administrator = true\n\
             disk_free_limit.absolute = 50MB\n\
             max_message_size = 1048576\n\
             log.console = false\n\
             log.exchange = true\n\
             log.exchange.level = warning\n",
            management = self.ports.management,
            public = keys.broker_token_public.display(),
            password = self.password,
        );
        write_private(&self.dir.join("rabbitmq.conf"), &configuration)?;
        write_private(&self.dir.join("enabled_plugins"), "[rabbitmq_management,rabbitmq_auth_backend_oauth2].\n")?;
        write_private(&self.dir.join("rabbitmq-env.conf"), "")
    }

    /// `program` with a clean environment that keeps everything below the node's folder.
    fn command(&self, program: &PathBuf, death_signal: &str) -> Command {
        let mut command = mortal(program, death_signal, &[]);
        let Ports { amqp, distribution, epmd, .. } = self.ports;
        command
            .env_clear()
            .env("PATH", env::join_paths(search_path()).unwrap_or_default())
            .env("HOME", &self.dir)
            .env("LANG", "C.UTF-8")
            .env(self.mark.0, &self.mark.1)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("RABBITMQ_NODENAME", format!("trustfleet{amqp}@localhost"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            // The script then becomes the Erlang machine instead of waiting beside it: signals reach the right one.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .current_dir(&self.dir);
        if self.tls.is_none() {
            // Said here, RabbitMQ listens there in plain text, whatever its configuration says.
            command.env("RABBITMQ_NODE_PORT", amqp.to_string()).env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        }
        for (name, below) in [
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "pid"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
            ("RABBITMQ_SCHEMA_DIR", "schema"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ] {
            command.env(name, self.dir.join(below));
        }
        command
    }
}

/// Whether something on `port` answers the protocol header of AMQP 0-9-1 with a method frame, over TLS where it must.
async fn answers_amqp(port: u16, tls: Option<&TlsFiles>) -> bool {
    let probe = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        match tls {
            None => answers_header(stream).await,
            Some(tls) => {
                let connector = TlsConnector::from(Arc::new(tls.client_config().ok()?));
                let name = ServerName::try_from("localhost").ok()?;
                answers_header(connector.connect(name, stream).await.ok()?).await
            }
        }
    };
    matches!(tokio::time::timeout(Duration::from_secs(5), probe).await, Ok(Some(())))
}

async fn answers_header(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    (stream.read_u8().await.ok()? == 1).then_some(())
}

/// The server's own script, of the newest version installed.
fn server_script() -> Result<PathBuf, StackError> {
    let missing = StackError::MissingProgram { program: "rabbitmq-server", package: "rabbitmq-server" };
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/rabbitmq/lib")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("rabbitmq_server-"))
        .map(|entry| entry.path().join("sbin"))
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    find_program("rabbitmq-server", versions).ok_or(missing)
}

fn parsed(url: &str) -> Result<Url, StackError> {
    url.parse().map_err(|error| StackError::Io {
        what: "making a URL for rabbitmq".to_owned(),
        source: std::io::Error::other(error),
    })
}
