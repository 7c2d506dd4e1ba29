//! Containers that join a network that was made ahead of them, each test in a network namespace of its own.
//!
//! It needs root and a static busybox; where one of these is missing the tests are ignored, with the reason in their name.

use isobench_runtime::launch::capture_output;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{BridgeNetwork, Firewall, Namespace};
use isobench_runtime::prepared::{PreparedNetwork, Stock};
use isobench_runtime::{Launched, NetworkMode, Plan, Program, Specification, launch};
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
        trial("without_a_network_there_is_lo_alone", without_a_network_there_is_lo_alone),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Runs a shell script in a container with this network; what it said, and the container.
fn said(network: PreparedNetwork, script: &str) -> Result<(String, Launched), Failed> {
    let busybox = Program::Descriptor(Arc::new(OwnedFd::from(File::open(BUSYBOX)?)));
    let arguments = ["busybox", "sh", "-c", script].map(String::from).to_vec();
    let mut specification = Specification::container(busybox, arguments);
    specification.network = NetworkMode::Prepared(network);
    let mut output = capture_output(&mut specification)?;
    let mut launched = launch(Plan::validate(specification)?)?;
    let line = output.line(DEADLINE)?;
    let exit = launched.process.wait(DEADLINE)?;
    if exit.code() == 0 { Ok((line, launched)) } else { Err(format!("{script}: {exit:?}, {line}").into()) }
}

fn each_of_many_gets_a_network_of_its_own() -> Result<(), Failed> {
    let firewall = Firewall::create("prepared")?;
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge())?;
    let making = network.clone();
    let stock = Stock::new(3, move || PreparedNetwork::attached(making.endpoint()?))?;
    stock.fill()?;
    let mut addresses = BTreeSet::new();
    for _ in 0..8 {
        // The gateway is the bridge itself: an answer means that packets go both ways from the first one on.
        let (address, launched) = said(
            stock.take()?,
            "busybox ping -c 1 -W 2 172.17.0.1 >/dev/null && busybox ip -4 -o addr show eth0 | busybox awk '{print $4}'",
        )?;
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
    let (links, launched) =
        said(stock.take()?, "busybox ip -o link | busybox awk '{printf \"%s\", $2} END {print \"\"}'")?;
    if links != "lo:" || launched.endpoint.is_some() {
        return Err(format!("there is {links}").into());
    }
    Ok(())
}
