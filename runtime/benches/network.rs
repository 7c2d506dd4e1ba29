//! What the network costs a launch: the veth pair with its inside, and a published port. Each in namespaces of its own.

use criterion::Criterion;
use isobench_runtime::network::bridge_network::Settings;
use isobench_runtime::network::{BridgeNetwork, Firewall, Namespace, PeerNamespace, Protocol};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

fn main() {
    let host = Namespace::create().expect("needs root");
    let benchmarks = || {
        let mut criterion = Criterion::default().configure_from_args();
        network(&mut criterion);
        criterion.final_summary();
    };
    host.enter(benchmarks).expect("a network namespace");
}

fn network(criterion: &mut Criterion) {
    let firewall = Firewall::create("isobench").expect("a firewall");
    let network = BridgeNetwork::create(&firewall, Settings::default_bridge()).expect("a network");
    let mut group = criterion.benchmark_group("network");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.bench_function("lease and prepare the inside", |bencher| {
        bencher.iter(|| network.endpoint().expect("a lease"))
    });
    group.bench_function("attach a veth pair", |bencher| bencher.iter_custom(|times| launches(&network, times)[0]));
    group.bench_function("configure the inside", |bencher| bencher.iter_custom(|times| launches(&network, times)[1]));
    let target = SocketAddrV4::new([172, 17, 0, 2].into(), 7000);
    group.bench_function("publish and unpublish a port", |bencher| {
        bencher.iter(|| drop(firewall.publish(Protocol::Tcp, 8080, target).expect("a free port")));
    });
    group.finish();
}

/// Time for attaching and for configuring, over so many launches; making and ending the namespaces is not counted.
fn launches(network: &BridgeNetwork, iterations: u64) -> [Duration; 2] {
    let mut total = [Duration::ZERO; 2];
    for _ in 0..iterations {
        let (endpoint, container) = (network.endpoint().expect("a lease"), Namespace::create().expect("needs root"));
        let begin = Instant::now();
        endpoint.attach(&PeerNamespace::from(&container)).expect("a veth pair");
        total[0] += begin.elapsed();
        total[1] += container
            .enter(|| {
                let begin = Instant::now();
                endpoint.configuration().apply().expect("a configuration");
                begin.elapsed()
            })
            .expect("a network namespace");
    }
    total
}
