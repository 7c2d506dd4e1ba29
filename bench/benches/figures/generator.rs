//! Our load generator beside iperf3 and sockperf: the same path, direction, buffer, time and CPUs, and on both sides a window
//! after a warm-up of one second, so that slow start is in neither.

use crate::place::{Path, Server, bridge, loopback, run};
use crate::{Pair, both};
use anyhow::{Context, bail};
use isobench_reports::statistics::distribution;
use isobench_workload::{Drive, DriveOutcome, Traffic, Workload};
use std::net::{IpAddr, SocketAddr};

const PORT: u16 = 7000;
const IPERF3_PORT: u16 = 7001;
const SOCKPERF_PORT: u16 = 7002;

/// The least that sockperf sends: its own header.
const MESSAGE: u32 = 14;

pub(crate) fn throughput_over_loopback() -> anyhow::Result<Pair> {
    throughput(loopback()?)
}

pub(crate) fn throughput_over_bridge() -> anyhow::Result<Pair> {
    throughput(bridge()?)
}

pub(crate) fn round_trip_over_loopback() -> anyhow::Result<Pair> {
    round_trip(loopback()?)
}

pub(crate) fn round_trip_over_bridge() -> anyhow::Result<Pair> {
    round_trip(bridge()?)
}

fn throughput(path: Path) -> anyhow::Result<Pair> {
    let ours = serve(&path)?;
    let listen = in_memory(&["-s", "-p", &IPERF3_PORT.to_string(), "--forceflush"]);
    let theirs = Server::start(&path.server, "env", &listen, "Server listening")
        .context("iperf3 is a peer: apt-get install iperf3")?;
    Ok(Box::new(move || {
        let _running = (&ours, &theirs);
        both(|| upload(&path, 1000, 1000), || iperf3(&path))
    }))
}

fn round_trip(path: Path) -> anyhow::Result<Pair> {
    let ours = serve(&path)?;
    let address = path.address.to_string();
    let listen = ["server", "--tcp", "-i", &address, "-p", &SOCKPERF_PORT.to_string()].map(str::to_owned);
    let theirs = Server::start(&path.server, "sockperf", &listen, "[tid ")
        .context("sockperf is a peer: apt-get install sockperf")?;
    Ok(Box::new(move || {
        let _running = (&ours, &theirs);
        both(|| ping(&path), || sockperf(&path))
    }))
}

/// Our server at a path's far end.
pub(crate) fn serve(path: &Path) -> anyhow::Result<Server> {
    Server::start(&path.server, &agent()?, &Workload::Serve { port: PORT }.arguments(), "ready")
}

/// Bytes a second by our generator, towards the server.
pub(crate) fn upload(path: &Path, warm_up: u64, milliseconds: u64) -> anyhow::Result<f64> {
    let outcome = drive(path, Traffic::Upload { streams: 1 }, warm_up, milliseconds)?;
    Ok(outcome.bytes as f64 / outcome.nanoseconds as f64 * 1e9)
}

/// The median round trip by our generator, in nanoseconds.
fn ping(path: &Path) -> anyhow::Result<f64> {
    let outcome = drive(path, Traffic::RoundTrips { bytes: MESSAGE }, 1000, 1000)?;
    Ok(distribution::decode(&outcome.histogram)?.value_at_quantile(0.5) as f64)
}

fn drive(path: &Path, traffic: Traffic, warm_up: u64, milliseconds: u64) -> anyhow::Result<DriveOutcome> {
    let server = SocketAddr::new(IpAddr::V4(path.address), if path.published { 8000 } else { PORT });
    let drive = Workload::Drive(Drive { server, traffic, warm_up, milliseconds });
    let output = run(&path.client, &agent()?, &drive.arguments())?;
    let outcome: DriveOutcome = serde_json::from_slice(&output).context("read the load generator's outcome")?;
    match outcome.error {
        Some(error) => bail!(error),
        None => Ok(outcome),
    }
}

/// Bytes a second by iperf3, as its receiver counts them; buffers of 128 KiB and without Nagle's algorithm, as ours.
///
/// By default its client asks select(2) every ten writes whether it may go on, which Linux affirms only once a third of the send
/// buffer is free: 2 % over a bridge. A burst of 1,000 writes (`-b`, iperf3(1)), at a rate that no path reaches, makes that question
/// rare, so that what the generators move is compared and not this habit.
fn iperf3(path: &Path) -> anyhow::Result<f64> {
    let (address, port) = (path.address.to_string(), IPERF3_PORT.to_string());
    let arguments = ["-c", &address, "-p", &port, "-t", "1", "-O", "1", "-l", "128K", "-b", "1000G/1000", "-N", "-J"];
    let output = run(&path.client, "env", &in_memory(&arguments))?;
    let report: serde_json::Value = serde_json::from_slice(&output).context("read iperf3's report")?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64);
    Ok(bits.with_context(|| format!("iperf3 measured nothing: {report}"))? / 8.0)
}

/// What env(1) is given to start iperf3 with its buffer in memory, as ours is: it is a file in `TMPDIR`, which on the disk costs it
/// 1 % over a bridge.
fn in_memory(arguments: &[&str]) -> Vec<String> {
    ["TMPDIR=/dev/shm", "iperf3"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect()
}

/// The median round trip by sockperf, in nanoseconds. Its warm-up is 400 ms and cannot be changed.
fn sockperf(path: &Path) -> anyhow::Result<f64> {
    let (address, port, size) = (path.address.to_string(), SOCKPERF_PORT.to_string(), MESSAGE.to_string());
    let arguments = ["ping-pong", "--tcp", "-i", &address, "-p", &port, "-m", &size, "-t", "2", "--full-rtt"];
    let output = run(&path.client, "sockperf", &arguments.map(str::to_owned))?;
    let report = String::from_utf8_lossy(&output);
    let median = report.lines().find(|line| line.contains("percentile 50.000"));
    let median = median.and_then(|line| line.rsplit('=').next()?.trim().parse::<f64>().ok());
    Ok(median.with_context(|| format!("sockperf measured nothing: {report}"))? * 1000.0)
}

fn agent() -> anyhow::Result<String> {
    std::env::var("ISOBENCH_AGENT").context("ISOBENCH_AGENT does not name the agent; run scripts/figures")
}
