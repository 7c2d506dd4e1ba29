//! The catalogue of all figures: one entry each, with what is promised of it.

use crate::{Pair, cells, container_program, exits, generator, library, machines, networks, programs, strategies};

/// One speed that is promised.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// What is measured.
    pub(crate) text: &'static str,
    /// What it is measured against.
    pub(crate) against: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    pub(crate) measure: fn() -> anyhow::Result<Pair>,
}

/// What the ratio of ours to the peer's must be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Within so much of one, either way: 0.05 is 5 %.
    Within(f64),
    /// Nothing is promised: the price of another figure, shown beside it.
    Shown,
}

impl Goal {
    /// Whether an interval keeps it: `yes` where all of it does, `no` where none of it does.
    pub(crate) fn met(self, low: f64, high: f64) -> &'static str {
        let (inside, outside) = match self {
            Self::Shown => return "shown",
            Self::AtMost(limit) => (high <= limit, low > limit),
            Self::AtLeast(limit) => (low >= limit, high < limit),
            Self::Within(margin) => {
                (low >= 1.0 - margin && high <= 1.0 + margin, high < 1.0 - margin || low > 1.0 + margin)
            }
        };
        match (inside, outside) {
            (true, _) => "yes",
            (_, true) => "no",
            _ => "undecided",
        }
    }
}

pub(crate) const FIGURES: &[Figure] = &[
    Figure {
        name: "container.program",
        text: "isobench-runtime run of a container without a network, program start to end",
        against: "crun run with the same bundle",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.4),
        measure: programs::against_crun,
    },
    Figure {
        name: "container.published",
        text: "isobench container run on the bridge with a published port, program start to the first answer through the port",
        against: "crun run of the same agent without a network, program start to the agent's ready line",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.5),
        measure: container_program::published_against_crun,
    },
    Figure {
        name: "container.docker",
        text: "isobench container run on the bridge with a published port, program start to the first answer through the port",
        against: "docker run of the same agent on its bridge with a published port, client start to the first answer",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.02),
        measure: container_program::published_against_docker,
    },
    Figure {
        name: "container.docker-gone",
        text: "the same container, from the order to kill until the program that ran it has ended and nothing is left",
        against: "docker's container with a published port, from the order to kill until nothing is left",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.05),
        measure: container_program::gone_against_docker,
    },
    Figure {
        name: "container.library",
        text: "container without a network, from its specification to its exit, in process",
        against: "bare clone3 with the same namespaces, pivot_root, exec and wait of the same static program",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.5),
        measure: library::against_bare_clone,
    },
    Figure {
        name: "container.bridge",
        text: "container on the bridge, t0 to the agent's ready line",
        against: "container without a network, t0 to the agent's ready line",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.8),
        measure: cells::bridge_against_none,
    },
    Figure {
        name: "container.pooled",
        text: "container on the bridge, its network from a stock, in process, to the agent's ready line",
        against: "container in host mode, in process, to the agent's ready line",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.15),
        measure: strategies::pooled_against_host,
    },
    Figure {
        name: "stock.refill",
        text: "the next network for the stock: namespace, veth on the bridge, configured and carrying packets",
        against: "container on the bridge with nothing prepared, in process, to the agent's ready line",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.0),
        measure: strategies::refill_against_plain,
    },
    Figure {
        name: "stock.memory",
        text: "memory of the kernel for one network in stock",
        against: "one KiB",
        unit: "KiB",
        goal: Goal::AtMost(512.0),
        measure: strategies::stock_memory,
    },
    Figure {
        name: "launch.large",
        text: "container without a network from a process that has touched 1 GiB, to the agent's ready line",
        against: "the same from a process that has touched 1 MiB",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.1),
        measure: strategies::large_against_small,
    },
    Figure {
        name: "launch.rate",
        text: "containers without a network, created and gone one after the other on one processor, for half a minute",
        against: "one a second",
        unit: "1/s",
        goal: Goal::AtLeast(200.0),
        measure: strategies::rate,
    },
    Figure {
        name: "bridge.thousandth",
        text: "the 1,000th container on a bridge that processes share, in process, to the agent's ready line",
        against: "the first container on such a bridge",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.5),
        measure: networks::thousandth_against_first,
    },
    Figure {
        name: "names.answer",
        text: "p99 of 10,000 questions of a container for a name on its network, one after the other (closed loop)",
        against: "one ms",
        unit: "ms",
        goal: Goal::AtMost(1.0),
        measure: networks::names_answered,
    },
    Figure {
        name: "unikernel.start",
        text: "unikernel VM with its network, t0 to the first TCP answer",
        against: "runc run of the same idle workload, t0 to its first answer",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.3),
        measure: cells::unikernel_against_runc,
    },
    Figure {
        name: "unikernel.launch",
        text: "unikernel VM with its network, jail and filters, t0 to the first TCP answer",
        against: "crun run of the same idle workload without a network, t0 to its ready line",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.45),
        measure: cells::unikernel_against_crun,
    },
    Figure {
        name: "unikernel.alone",
        text: "unikernel VM without a network, jail and filters, t0 to its ready line",
        against: "crun run of the same idle workload without a network, t0 to its ready line",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.3),
        measure: cells::unikernel_alone_against_crun,
    },
    Figure {
        name: "unikernel.rate",
        text: "unikernel VMs with their network, created, served from and gone, four at once, for half a minute",
        against: "one a second",
        unit: "1/s",
        goal: Goal::AtLeast(100.0),
        measure: machines::rate,
    },
    Figure {
        name: "unikernel.restore",
        text: "unikernel VM restored from a verified snapshot as a clone, its network included, t0 to the first TCP answer",
        against: "the same unikernel VM booted, its network included, t0 to the first TCP answer",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.0),
        measure: cells::unikernel_restored,
    },
    Figure {
        name: "unikernel.gone",
        text: "unikernel VM with its network, from the order to end until all of it is gone",
        against: "crun's container without a network, from the order to end until all of it is gone",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.0),
        measure: cells::unikernel_gone,
    },
    Figure {
        name: "unikernel.round-trip",
        text: "median TCP round trip of one byte to the unikernel VM through tap and bridge, which spins for 50 us",
        against: "the same to a container on the same bridge",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.2),
        measure: cells::unikernel_round_trip,
    },
    Figure {
        name: "unikernel.round-trip-cost",
        text: "CPU time of load generator and unikernel VM, which spins for 50 us, per such round trip",
        against: "the same to a container on the same bridge",
        unit: "ratio of ns",
        goal: Goal::Shown,
        measure: cells::unikernel_round_trip_cost,
    },
    Figure {
        name: "unikernel.round-trip-sleeping",
        text: "the same median round trip to a unikernel VM that does not spin, less 35 us",
        against: "the same to a container on the same bridge",
        unit: "ratio of ns",
        goal: Goal::AtMost(1.0),
        measure: cells::unikernel_sleeping_round_trip,
    },
    Figure {
        name: "unikernel.round-trip-sleeping-cost",
        text: "CPU time of load generator and unikernel VM, which does not spin, per such round trip",
        against: "the same to a container on the same bridge",
        unit: "ratio of ns",
        goal: Goal::Shown,
        measure: cells::unikernel_sleeping_round_trip_cost,
    },
    Figure {
        name: "unikernel.upload",
        text: "TCP into the unikernel VM through tap and bridge",
        against: "TCP into a container on the same bridge",
        unit: "ratio of B/s",
        goal: Goal::AtLeast(0.9),
        measure: cells::unikernel_upload,
    },
    Figure {
        name: "unikernel.download",
        text: "TCP out of the unikernel VM through tap and bridge",
        against: "TCP out of a container on the same bridge",
        unit: "ratio of B/s",
        goal: Goal::AtLeast(0.9),
        measure: cells::unikernel_download,
    },
    Figure {
        name: "unikernel.upload-cost",
        text: "CPU seconds of load generator and unikernel VM per gigabyte of TCP into it",
        against: "the same into a container on the same bridge",
        unit: "ratio of s/GB",
        goal: Goal::AtMost(1.4),
        measure: cells::unikernel_upload_cost,
    },
    Figure {
        name: "unikernel.download-cost",
        text: "CPU seconds of load generator and unikernel VM per gigabyte of TCP out of it",
        against: "the same out of a container on the same bridge",
        unit: "ratio of s/GB",
        goal: Goal::AtMost(1.4),
        measure: cells::unikernel_download_cost,
    },
    Figure {
        name: "unikernel.memory",
        text: "memory of the virtual machine monitor beyond its guest's RAM",
        against: "one MiB",
        unit: "MiB",
        goal: Goal::AtMost(1.5),
        measure: cells::monitor_memory,
    },
    Figure {
        name: "unikernel.many",
        text: "the host's memory for one of 500 idle unikernel VMs with their network, all of it counted",
        against: "the same for one of 500 idle containers on the same bridge",
        unit: "ratio of B",
        goal: Goal::AtMost(1.0),
        measure: machines::many_against_containers,
    },
    Figure {
        name: "linux.exits",
        text: "exits of a Linux guest's processor from its start until /init says its line; in scripts/rig a count on an emulated machine",
        against: "QEMU's -M microvm,accel=kvm with the same kernel and initramfs",
        unit: "ratio of exits",
        goal: Goal::AtMost(0.6),
        measure: exits::linux_against_qemu,
    },
    Figure {
        name: "linux.restore",
        text: "Linux VM restored from a verified snapshot as a clone, its network included, t0 to the first TCP answer; in scripts/rig on an emulated machine",
        against: "the same Linux VM booted, its network included, t0 to the first TCP answer",
        unit: "ratio of ns",
        goal: Goal::AtMost(0.2),
        measure: cells::linux_restored,
    },
    Figure {
        name: "generator.loopback.agreement",
        text: "TCP by our load generator over loopback",
        against: "iperf3 over the same path",
        unit: "ratio of B/s",
        goal: Goal::Within(0.05),
        measure: generator::throughput_over_loopback,
    },
    Figure {
        name: "generator.bridge.agreement",
        text: "TCP by our load generator over veth and bridge",
        against: "iperf3 over the same path",
        unit: "ratio of B/s",
        goal: Goal::Within(0.05),
        measure: generator::throughput_over_bridge,
    },
    Figure {
        name: "generator.loopback.round-trip.agreement",
        text: "median TCP round trip by our load generator over loopback",
        against: "sockperf over the same path",
        unit: "ratio of ns",
        goal: Goal::Within(0.05),
        measure: generator::round_trip_over_loopback,
    },
    Figure {
        name: "generator.bridge.round-trip.agreement",
        text: "median TCP round trip by our load generator over veth and bridge",
        against: "sockperf over the same path",
        unit: "ratio of ns",
        goal: Goal::Within(0.05),
        measure: generator::round_trip_over_bridge,
    },
    Figure {
        name: "path.loopback",
        text: "TCP over lo between two containers that share a network",
        against: "lo of a namespace set up with ip",
        unit: "ratio of B/s",
        goal: Goal::Within(0.05),
        measure: cells::loopback_by_hand,
    },
    Figure {
        name: "path.bridge",
        text: "TCP from outside to a published port of a container",
        against: "the same path set up with ip and nft",
        unit: "ratio of B/s",
        goal: Goal::Within(0.05),
        measure: cells::bridge_by_hand,
    },
];
