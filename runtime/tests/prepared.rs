//! Containers that join a network that was made ahead of them, each test in a network namespace of its own.
//!
//! It needs root and a static busybox; where one of these is missing the tests are ignored, with the reason in their name.

use isobench_runtime::launch::capture_output;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{BridgeNetwork, EmptyNamespace, Firewall, Namespace, Netlink};
use isobench_runtime::prepared::{PreparedNetwork, Stock};
use isobench_runtime::{Error, Launched, NetworkMode, Plan, Program, Specification, Step, launch_while};
use isobench_workload::Resource;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const BUSYBOX: &str = "/bin/busybox";
const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("needs root")
    } else if !Path::new(BUSYBOX).exists() {
        Some("needs /bin/busybox: apt-get install busybox-static")
    } else {
        None
    };
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        let name = missing.map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        Trial::test(name, move || Namespace::create()?.enter(test)?).with_ignored_flag(missing.is_some())
    };
    let tests = vec![
        trial("each_of_many_gets_a_network_of_its_own_from_the_stock", each_of_many_gets_a_network_of_its_own),
        trial("a_network_that_nobody_took_leaves_nothing", a_network_that_nobody_took_leaves_nothing),
        trial("a_namespace_made_ahead_is_attached", a_namespace_made_ahead_is_attached),
        trial("a_launch_that_fails_leaves_no_link", a_launch_that_fails_leaves_no_link),
        trial("a_namespace_of_another_user_is_refused", a_namespace_of_another_user_is_refused),
        trial("without_a_network_there_is_lo_alone", without_a_network_there_is_lo_alone),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Runs a shell script in a container with this network; what it said, and the container.
fn said(network: NetworkMode, script: &str) -> Result<(String, Launched), Failed> {
    said_while(network, script, || Ok(()))
}

fn said_while(
    network: NetworkMode,
    script: &str,
    meanwhile: impl FnOnce() -> Result<(), Failed>,
) -> Result<(String, Launched), Failed> {
    let mut specification = shell(network, script)?;
    let mut output = capture_output(&mut specification)?;
    let (mut launched, ()) = launch_while(Plan::validate(specification)?, meanwhile)?;
    let line = output.line(DEADLINE)?;
    let exit = launched.process.wait(DEADLINE)?;
    if exit.code() == 0 { Ok((line, launched)) } else { Err(format!("{script}: {exit:?}, {line}").into()) }
}

fn shell(network: NetworkMode, script: &str) -> Result<Specification, Failed> {
    let busybox = Program::Descriptor(Arc::new(OwnedFd::from(File::open(BUSYBOX)?)));
    let arguments = ["busybox", "sh", "-c", script].map(String::from).to_vec();
    let mut specification = Specification::container(busybox, arguments);
    specification.network = network;
    Ok(specification)
}

/// The gateway is the bridge itself: an answer means that packets go both ways from the first one on.
const PING_AND_TELL: &str =
    "busybox ping -c 1 -W 2 172.17.0.1 >/dev/null && busybox ip -4 -o addr show eth0 | busybox awk '{print $4}'";

fn a_namespace_made_ahead_is_attached() -> Result<(), Failed> {
    let firewall = Firewall::create("prepared")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    for _ in 0..4 {
        let (endpoint, ahead) = (network.endpoint()?, EmptyNamespace::create()?);
        let address = endpoint.address();
        let mode = NetworkMode::Awaited(Arc::clone(ahead.descriptor()));
        // It would be first by far if it did not wait.
        let attach = || {
            std::thread::sleep(Duration::from_millis(20));
            endpoint.attach_ahead(&ahead)?;
            drop(ahead);
            Ok(())
        };
        let (said, launched) = said_while(mode, &format!("echo $({PING_AND_TELL}) on $(busybox nproc)"), attach)?;
        // It starts on this thread's processor, and may then run on all.
        if said != format!("{address}/16 on {}", std::thread::available_parallelism()?) {
            return Err(format!("it has {said} in place of {address}").into());
        }
        // Nothing that stayed here keeps the link once the container has ended.
        drop(launched);
        (Box::new(endpoint) as Box<dyn Resource>).release().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn a_launch_that_fails_leaves_no_link() -> Result<(), Failed> {
    let firewall = Firewall::create("prepared")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let launching = |program: &str, fails: bool| -> Result<(), Failed> {
        let (endpoint, ahead) = (network.endpoint()?, EmptyNamespace::create()?);
        let mut specification = shell(NetworkMode::Awaited(Arc::clone(ahead.descriptor())), "")?;
        specification.program = Program::Path(program.into());
        let meanwhile = || {
            endpoint.attach_ahead(&ahead)?;
            drop(ahead);
            if fails { Err(Error::Invalid { what: "this".into(), why: "fails".into() }) } else { Ok(()) }
        };
        match (launch_while(Plan::validate(specification)?, meanwhile), fails) {
            (Err(Error::Child { step: Step::Execute, .. }), false) | (Err(Error::Invalid { .. }), true) => Ok(()),
            (other, _) => Err(format!("{other:?}").into()),
        }
    };
    launching("/there/is/none", false)?;
    // What runs only after the network never runs.
    launching("/bin/busybox", true)?;
    // The link goes with the namespace, of which nobody has anything any more.
    let mut netlink = Netlink::open_in(&Namespace::current()?)?;
    let deadline = std::time::Instant::now() + DEADLINE;
    while netlink.links()?.iter().any(|link| link.name.starts_with('v')) {
        if std::time::Instant::now() > deadline {
            return Err("the link stays".into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn a_namespace_of_another_user_is_refused() -> Result<(), Failed> {
    let ahead = EmptyNamespace::create()?;
    let mut specification = shell(NetworkMode::Awaited(Arc::clone(ahead.descriptor())), "")?;
    specification.namespaces.user = true;
    match Plan::validate(specification) {
        Err(error) if error.to_string().contains("user namespace") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn each_of_many_gets_a_network_of_its_own() -> Result<(), Failed> {
    let firewall = Firewall::create("prepared")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let making = network.clone();
    let stock = Stock::new(3, move || PreparedNetwork::attached(making.endpoint()?))?;
    stock.fill()?;
    let mut addresses = BTreeSet::new();
    for _ in 0..8 {
        let (address, launched) = said(NetworkMode::Prepared(stock.take()?), PING_AND_TELL)?;
        if !addresses.insert(address.clone()) {
            return Err(format!("{address} was given twice").into());
        }
        let endpoint = launched.endpoint.ok_or("a place in the network was lost")?;
        (Box::new(endpoint) as Box<dyn Resource>).release().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn a_network_that_nobody_took_leaves_nothing() -> Result<(), Failed> {
    let firewall = Firewall::create("prepared")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let endpoint = network.endpoint()?;
    let prepared = PreparedNetwork::attached(endpoint)?;
    let link = prepared.endpoint().and_then(|endpoint| endpoint.link().map(str::to_owned)).ok_or("there is no link")?;
    let mut netlink = isobench_runtime::network::Netlink::open_in(&Namespace::current()?)?;
    if netlink.link(&link)?.is_none() {
        return Err(format!("{link} is not there").into());
    }
    prepared.release().map_err(|error| error.to_string())?;
    if netlink.link(&link)?.is_some() {
        return Err(format!("{link} stays").into());
    }
    Ok(())
}

fn without_a_network_there_is_lo_alone() -> Result<(), Failed> {
    let stock = Stock::new(1, PreparedNetwork::alone)?;
    let (links, launched) = said(
        NetworkMode::Prepared(stock.take()?),
        "busybox ip -o link | busybox awk '{printf \"%s\", $2} END {print \"\"}'",
    )?;
    if links != "lo:" || launched.endpoint.is_some() {
        return Err(format!("there is {links}").into());
    }
    Ok(())
}
