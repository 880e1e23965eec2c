//! The command line: what can be asked, and the help that says so.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::log::Format;

/// Exit status when a command cannot do what it was asked at all.
pub(crate) const UNUSABLE: u8 = 2;

/// Where the admin address is unless told otherwise.
const ADMIN: &str = "127.0.0.1:9900";
const CONTROLLER_ADMIN: &str = "[::]:9900";

/// The gate where traffic enters: Kubernetes Ingress and Gateway API, on one machine or a cluster.
#[derive(Debug, Parser)]
#[command(name = "pierhead", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// What to log: a level (error, warn, info, debug, trace), or levels by module, `info,pierhead_dataplane=debug`.
    #[arg(
        long,
        global = true,
        env = "PIERHEAD_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub(crate) log: String,
    /// How to log: `auto` is text on a terminal and JSON otherwise.
    #[arg(long, global = true, default_value = "auto", value_name = "FORMAT")]
    pub(crate) log_format: Format,
}

const EXAMPLES: &str = "\
Examples:
  pierhead standalone --config ./manifests
      Serve the Ingresses, Gateways and routes of a folder; changes are picked up live.
  pierhead standalone --config ./manifests --ingress-http-port 8080 --ingress-https-port 8443
      The same without root.
  pierhead standalone --kubeconfig ~/.kube/config
      Serve what a cluster says, from one machine.
  pierhead check ./manifests
      Say what is wrong with a folder, and what would become of each object, without serving it.
  pierhead status
      Show what the running one serves, and how traffic reaches it.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Serve what a folder of Kubernetes manifests says, with no cluster; or what a cluster says, in one process.
    Standalone(Box<Standalone>),
    /// Serve, on one node of a cluster, what the controller says.
    Node(Box<NodeVerb>),
    /// Watch a cluster, tell its nodes what to serve, and write statuses.
    Controller(Box<Controller>),
    /// Check a folder of manifests: problems, and the conditions each object would get.
    Check(Check),
    /// Show what a running Pierhead serves.
    Status(Status),
    /// Remove everything Pierhead has put into this kernel and this network namespace.
    Uninstall,
    /// Print the version.
    Version,
}

impl Verb {
    /// Whether this process is the one that looks after the one that serves.
    pub(crate) fn is_to_be_supervised(&self) -> bool {
        let (asked, node) = match self {
            Self::Standalone(options) => (options.supervise, &options.node),
            Self::Node(options) => (options.supervise, &options.node),
            Self::Controller(_) | Self::Check(_) | Self::Status(_) | Self::Uninstall | Self::Version => return false,
        };
        asked && node.supervised.supervised_by.is_none()
    }
}

/// How much the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ebpf {
    /// Nothing: every bind is an ordinary socket.
    Off,
    /// Brings connections to the proxy (`sk_lookup`): any address, any port, without binding.
    Steer,
    /// Steers, and balances TCPRoutes and UDPRoutes by itself where endpoints are local.
    Full,
    /// As much as this machine allows; the log and `pierhead status` say what and why.
    Auto,
}

impl Ebpf {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Steer => "steer",
            Self::Full => "full",
            Self::Auto => "auto",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnMiss {
    /// Refuse it.
    Drop,
    /// Let this machine's own sockets have it.
    Pass,
}

/// What decides the meaning of manifests beside themselves: the same for `standalone`, `controller` and `check`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Meaning {
    /// Where Ingresses are served without TLS.
    #[arg(long, default_value_t = 80, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ingress_http_port: u16,
    /// Where Ingresses are served with TLS.
    #[arg(long, default_value_t = 443, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ingress_https_port: u16,
    /// The TLS Secret for Ingress hosts that have none of their own.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    pub(crate) default_certificate: Option<(String, String)>,
    /// What becomes of traffic to a pool address on a port nobody listens on.
    #[arg(long, default_value = "drop")]
    pub(crate) on_miss: OnMiss,
    /// Serve Ingresses that name no class too, by field or by annotation.
    #[arg(long)]
    pub(crate) watch_ingress_without_class: bool,
}

/// Pools given by hand, where no `GatewayParameters` does.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Pools {
    /// Give each Gateway that names no address one of this prefix; repeatable. The addresses are here: with a cluster, no
    /// second process may have the same pool.
    #[arg(long, value_name = "CIDR")]
    pub(crate) address_pool: Vec<IpNet>,
}

/// Where configuration comes from.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct From {
    /// The folder of manifests (YAML or JSON, sub-folders included).
    #[arg(long, short, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster that this file leads to.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The cluster that this process runs in, by its ServiceAccount.
    #[arg(long)]
    pub(crate) in_cluster: bool,
}

#[derive(Debug, Args)]
#[command(after_help = STANDALONE_EXAMPLES)]
pub(crate) struct Standalone {
    #[command(flatten)]
    pub(crate) from: From,
    #[command(flatten)]
    pub(crate) meaning: Meaning,
    #[command(flatten)]
    pub(crate) pools: Pools,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// The namespace of the lease by which one of several writes statuses; with a cluster.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", value_name = "NAME")]
    pub(crate) namespace: String,
    /// Take over from a Pierhead that runs here, without cutting a connection; it drains and ends.
    #[arg(long)]
    pub(crate) takeover: bool,
    /// How long connections may take to end when Pierhead is stopped or replaced.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,
    /// Run in two processes: one serves, the other starts it again at once when it dies.
    #[arg(long)]
    pub(crate) supervise: bool,
}

/// What a process that carries traffic is told, wherever its configuration comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeOptions {
    /// How much the kernel does.
    #[arg(long, default_value = "auto", value_name = "MODE")]
    pub(crate) ebpf: Ebpf,
    /// Where health, metrics and status are served; keep it on loopback.
    #[arg(long, default_value = ADMIN, value_name = "ADDRESS:PORT")]
    pub(crate) admin: SocketAddr,
    /// The same on a Unix socket: this process's own, also while it takes over from another on the same machine.
    #[arg(long, value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// Worker threads; one per core unless given.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZero<usize>>,
    /// A JSON line for each request and connection: to a file, to standard output (`-`), or `off`.
    #[arg(long, default_value = "off", value_name = "PATH|-|off")]
    pub(crate) access_log: String,
    /// Network interfaces where the kernel balances TCP and UDP; all external ones unless given; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) nic: Vec<String>,
    /// TCP and UDP flows that the kernel balances at once, some 110 bytes each while there; more go through userspace.
    #[arg(long, default_value_t = pierhead_kernel::DEFAULT_MAX_FLOWS, value_name = "N")]
    pub(crate) max_flows: NonZero<u32>,
    /// The name of this node, as EndpointSlices give it.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Where things are remembered across restarts (addresses given to Gateways, the last good configuration, the node's
    /// key); /var/lib/pierhead for root, else below $XDG_STATE_HOME.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) supervised: Supervised,
}

/// What the process that serves is told by the one that looks after it; not for people.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Supervised {
    /// Who looks after it.
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) supervised_by: Option<u32>,
    /// How often one before it died.
    #[arg(long, hide = true, default_value_t = 0, value_name = "N")]
    pub(crate) deaths: u32,
}

#[derive(Debug, Args)]
#[command(after_help = NODE_EXAMPLES)]
pub(crate) struct NodeVerb {
    /// The controller, `https://NAME:PORT`.
    #[arg(long, value_name = "URL")]
    pub(crate) controller: String,
    /// A name that leads to every replica of the controller by an address of its own: of one that died, another is found at
    /// once. The name in the URL, which may lead to any, is asked for where this one leads nowhere.
    #[arg(long, value_name = "NAME")]
    pub(crate) controller_replicas: Option<String>,
    /// The file with the ServiceAccount token (audience `pierhead`) that this node proves itself with.
    #[arg(long, default_value = "/var/run/secrets/pierhead.dev/token", value_name = "FILE")]
    pub(crate) token: PathBuf,
    /// The file with the CA certificate that the controller's certificate is checked with.
    #[arg(long, default_value = "/etc/pierhead/ca/ca.crt", value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// The addresses by which this node is reached; all of its interfaces unless given; repeatable, or separated by commas.
    #[arg(
        long = "node-address",
        env = "HOST_IPS",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub(crate) addresses: Vec<IpAddr>,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Take over from a Pierhead that runs here, without cutting a connection; it drains and waits to be stopped.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) takeover: bool,
    /// How long connections may take to end when Pierhead is stopped or replaced.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,
    /// Run in two processes: one serves, the other starts it again at once when it dies.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) supervise: bool,
}

const NODE_EXAMPLES: &str = "\
Examples:
  pierhead node --controller https://pierhead-controller.pierhead-system.svc:9901 --node-name node-1

What it served last is kept in the state folder, a sub-folder per node name: without its controller a node goes on with
it, also after a restart.

Rolling restart: the newcomer starts beside the old one, in the same network namespace and with the same --state-dir. It
gets its configuration, opens its sockets, and then moves all new connections to them in one step; the old one is told,
finishes what it has (HTTP/1 answers say `connection: close`, HTTP/2 gets GOAWAY, streams go on), is not ready any more,
and waits for SIGTERM, which gives what is left --drain-seconds. The admin address goes to the newcomer as soon as the
old one has let go of it; who must know which of the two he asks, such as a probe, uses --admin-socket and
`pierhead status --admin PATH --quiet`. With --ebpf steer and full nothing is cut; a change of the kernel maps' layout
between two versions costs TCP and UDP flows that the kernel balances by itself. With --ebpf off connections that are in
their handshake in that moment are lost unless net.ipv4.tcp_migrate_req=1 (Linux 5.14) is set; datagrams may be.

The first process starts a second one, which serves, and looks after it (--supervise): when that one dies, the next serves
at once what the disk remembers. With --ebpf steer and full new connections wait for it meanwhile; with off they are
refused. One that cannot start, with a reason, ends both, and so does one that dies five times before it serves; an
orderly end, by SIGTERM to the first process, ends both with status 0.";

#[derive(Debug, Args)]
pub(crate) struct Controller {
    /// Where nodes connect to.
    #[arg(long, default_value = "[::]:9901", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where health, metrics and status are served.
    #[arg(long, default_value = CONTROLLER_ADMIN, value_name = "ADDRESS:PORT")]
    pub(crate) admin: SocketAddr,
    /// The namespace this runs in: of its lease, its CA and its Service.
    #[arg(long, env = "POD_NAMESPACE", default_value = "pierhead-system", value_name = "NAME")]
    pub(crate) namespace: String,
    /// Who this is among its replicas.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// The Lease whose holder writes statuses.
    #[arg(long, default_value = "pierhead-controller", value_name = "NAME")]
    pub(crate) lease: String,
    /// The address at which other replicas reach this one: they ask there whether it is alive when it does not renew the lease.
    /// Without it they wait until the lease has run out.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pub(crate) pod_ip: Option<IpAddr>,
    /// The Service by which nodes reach it: a name in its certificate.
    #[arg(long, default_value = "pierhead-controller", value_name = "NAME")]
    pub(crate) service_name: String,
    /// The file that leads to the API server; the ServiceAccount of the pod unless given.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) meaning: Meaning,
}

const STANDALONE_EXAMPLES: &str = "\
Examples:
  pierhead standalone --config ./manifests
  pierhead standalone --config ./manifests --address-pool 192.0.2.0/28 --ebpf full
      Each Gateway gets an address of its own; nothing is configured by hand.
  pierhead standalone --config ./manifests --ebpf off --ingress-http-port 8080 --ingress-https-port 8443
      Without root: ports above 1023, sockets only.

Stop it with Ctrl-C or SIGTERM: what is in flight is finished first.";

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 all is well, 1 there are problems, 2 the folder cannot be used.")]
pub(crate) struct Check {
    /// The folder of manifests.
    #[arg(value_name = "DIR")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) meaning: Meaning,
    #[command(flatten)]
    pub(crate) pools: Pools,
    /// How to print.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Where a running one is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    Address(SocketAddr),
    Socket(PathBuf),
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if text.contains('/') => Ok(Self::Socket(text.into())),
            Err(_) => Err("write it as ADDRESS:PORT, or as the path of a Unix socket".into()),
        }
    }
}

impl Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 ready, 1 not ready, 2 no answer.")]
pub(crate) struct Status {
    /// The admin address of the running one, or the path of its admin socket.
    #[arg(long, default_value = ADMIN, value_name = "ADDRESS:PORT|PATH")]
    pub(crate) admin: Admin,
    /// Print nothing: the exit status says it. For probes.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Ask only whether it is alive, ready or not.
    #[arg(long, requires = "quiet")]
    pub(crate) alive: bool,
    /// How to print.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

fn object_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write it as namespace/name".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_parses() {
        for example in [EXAMPLES, STANDALONE_EXAMPLES, NODE_EXAMPLES] {
            let lines = example
                .lines()
                .filter(|line| line.trim_start().starts_with("pierhead "));
            for line in lines {
                Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn a_node_takes_over_unless_told_not_to() {
        let takeover = |more: &[&str]| {
            let all = ["pierhead", "node", "--controller", "https://c:1"].iter().chain(more);
            match Cli::try_parse_from(all).map(|cli| cli.verb) {
                Ok(Verb::Node(node)) => node.takeover,
                other => panic!("{other:?}"),
            }
        };
        assert!(takeover(&[]) && takeover(&["--takeover"]) && takeover(&["--takeover", "true"]));
        assert!(!takeover(&["--takeover", "false"]) && !takeover(&["--takeover=false"]));
    }

    #[test]
    fn a_node_is_looked_after_and_a_laptop_only_when_asked() {
        let supervise = |all: &[&str]| match Cli::try_parse_from(all).map(|cli| cli.verb) {
            Ok(Verb::Node(node)) => node.supervise,
            Ok(Verb::Standalone(one)) => one.supervise,
            other => panic!("{other:?}"),
        };
        let node = ["pierhead", "node", "--controller", "https://c:1"];
        assert!(supervise(&node) && !supervise(&[&node[..], &["--supervise=false"]].concat()));
        let standalone = ["pierhead", "standalone", "--config", "a"];
        assert!(!supervise(&standalone) && supervise(&[&standalone[..], &["--supervise"]].concat()));
    }

    #[test]
    fn configuration_comes_from_one_place() {
        let parse = |more: &[&str]| Cli::try_parse_from(["pierhead", "standalone"].iter().chain(more)).is_ok();
        assert!(parse(&["--config", "a"]) && parse(&["--kubeconfig", "a"]) && parse(&["--in-cluster"]));
        assert!(!parse(&[]) && !parse(&["--config", "a", "--in-cluster"]));
    }

    #[test]
    fn an_admin_address_or_socket() {
        assert_eq!("127.0.0.1:1".parse(), Ok(Admin::Address(([127, 0, 0, 1], 1).into())));
        assert_eq!("./a.sock".parse(), Ok(Admin::Socket("./a.sock".into())));
        assert!("nonsense".parse::<Admin>().is_err());
    }

    #[test]
    fn a_certificate_is_named_with_its_namespace() {
        assert_eq!(object_name("a/b"), Ok(("a".into(), "b".into())));
        assert!(object_name("b").is_err());
        assert!(object_name("a/b/c").is_err());
    }
}
