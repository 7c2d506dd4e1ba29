//! The unikernel from end to end: real virtual machines, real packets. Each test has a network namespace of its own, whose side
//! of the tap is the client. What can't run on this machine is ignored, with the reason as its kind.

mod support;

use isobench_microvm::devices::virtio::tap;
use isobench_microvm::judge::judge;
use isobench_microvm::sandbox::{AttachError, Attachment, Housing, MEMORY, UnikernelSandbox};
use isobench_microvm::unikernel::UNIKERNEL;
use isobench_workload::client::{self, WorkError, Worker};
use isobench_workload::connect::{Encounter, Target};
use isobench_workload::protocol::{Answer, Operation, PORT, Request};
use isobench_workload::work::{Job, Kind, Pages, Refusal, Report, Rounds, Task};
use isobench_workload::{Instance, LaunchError, Probe, Sandbox, Stage, Workload, announcement};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};
use support::{check, ip, no_network};

const VMM: &str = env!("CARGO_BIN_EXE_isobench-vmm");
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 5);
const PATIENCE: Duration = Duration::from_secs(20);
const MACHINE: Housing = Housing::VirtualMachine { memory: MEMORY };
/// With more memory than all of its connections together take.
const LARGE_MACHINE: Housing = Housing::VirtualMachine { memory: 128 << 20 };

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let kvm = (!judge().runs_unikernel()).then(|| judge().to_string());
    let network = no_network();
    let alone: [(&str, Test); 11] = [
        ("a_machine_without_a_network_starts_and_serves_nobody", a_machine_without_a_network_starts_and_serves_nobody),
        ("the_judge_is_quick", the_judge_is_quick),
        ("exit_ends_with_status_0", exit_ends_with_status_0),
        ("a_wild_pointer_is_told_with_registers", a_wild_pointer_is_told_with_registers),
        ("a_stack_overflow_is_told", a_stack_overflow_is_told),
        ("a_halt_is_told_with_registers", a_halt_is_told_with_registers),
        ("a_wild_jump_is_told_with_registers", a_wild_jump_is_told_with_registers),
        ("a_panic_is_told_with_its_message", a_panic_is_told_with_its_message),
        ("a_looping_guest_ends_at_its_deadline", a_looping_guest_ends_at_its_deadline),
        ("an_idle_guest_ends_at_its_deadline", an_idle_guest_ends_at_its_deadline),
        ("bad_options_are_one_sentence", bad_options_are_one_sentence),
    ];
    let networked: [(&str, Test); 19] = [
        ("every_stage_is_stamped_in_order", every_stage_is_stamped_in_order),
        ("source_sends_what_was_asked", || payloads(MACHINE, source)),
        ("sink_counts_what_it_received", || payloads(MACHINE, sink)),
        ("echo_gives_back_the_same_bytes", || payloads(MACHINE, echo)),
        ("wire_source", || wire_payloads(source)),
        ("wire_sink", || wire_payloads(sink)),
        ("connections_come_and_go", connections_come_and_go),
        ("a_stray_peer_is_refused_alone", a_stray_peer_is_refused_alone),
        ("an_idle_server_sleeps", an_idle_server_sleeps),
        ("work_comes_to_the_same_as_elsewhere", || work(LARGE_MACHINE)),
        ("work_that_it_cannot_do_is_refused", work_that_it_cannot_do_is_refused),
        ("it_connects_by_order", || connects(MACHINE)),
        ("much_and_little_take_turns", much_and_little_take_turns),
        ("both_directions_go_on_at_once", both_directions_go_on_at_once),
        ("connections_that_send_share_the_queue", connections_that_send_share_the_queue),
        ("every_thread_is_confined", every_thread_is_confined),
        ("machines_share_the_image", machines_share_the_image),
        ("nothing_is_left", nothing_is_left),
        ("what_it_cannot_do_is_refused", what_it_cannot_do_is_refused),
    ];
    let process: [(&str, Test); 5] = [
        ("process_connects_by_order", || connects(Housing::Process)),
        ("process_work", || work(Housing::Process)),
        ("process_source", || payloads(Housing::Process, source)),
        ("process_sink", || payloads(Housing::Process, sink)),
        ("process_echo", || payloads(Housing::Process, echo)),
    ];
    let counters = std::fs::metadata("/proc/thread-self/io").err();
    let counters = counters.map(|_| "the kernel counts no thread's bytes (CONFIG_TASK_IO_ACCOUNTING)".to_owned());
    let counted = kvm.clone().or_else(|| network.clone()).or(counters);
    let mut trials =
        vec![trial("much_is_read_on_the_processors_thread", much_is_read_on_the_processors_thread, counted)];
    trials.extend(alone.map(|(name, test)| trial(name, test, kvm.clone())));
    trials.extend(networked.map(|(name, test)| trial(name, test, kvm.clone().or_else(|| network.clone()))));
    trials.extend(process.map(|(name, test)| trial(name, test, network.clone())));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, test: Test, obstacle: Option<String>) -> Trial {
    let ignored = obstacle.is_some();
    Trial::test(name, test).with_ignored_flag(ignored).with_kind(obstacle.unwrap_or_default())
}

/// Moves this thread, and what it starts, into a network namespace of its own.
fn own_network() -> Result<(), Failed> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// A tap whose host side is 172.17.0.1.
fn attach() -> Result<Attachment, AttachError> {
    let tap = tap::open("guest0")?;
    ip("link set guest0 up")?;
    ip("address add 172.17.0.1/16 dev guest0")?;
    let mac = [2, 0, 0, 0, 0, 5];
    Ok(Attachment { tap, mac, address: GUEST, prefix: 16, gateway: None, resources: Vec::new() })
}

fn served(housing: Housing) -> Result<Instance, Failed> {
    own_network()?;
    let mut sandbox = UnikernelSandbox::new(housing, PathBuf::from(VMM), attach);
    let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
    instance.await_ready(PATIENCE)?;
    Ok(instance)
}

fn wire_payloads(traffic: fn(usize) -> Result<(), Failed>) -> Result<(), Failed> {
    own_network()?;
    let mut sandbox = UnikernelSandbox::new(MACHINE, PathBuf::from(VMM), attach).with_wire_packets();
    let mut instance = sandbox.launch(&Workload::Serve { port: PORT })?;
    instance.await_ready(PATIENCE)?;
    traffic(5_000_000)?;
    // Bytes and packets received and transmitted: no packet is larger than a wire's.
    let counters = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = counters.lines().find_map(|line| line.trim().strip_prefix("guest0:")).ok_or("no counters")?;
    let count: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    check(count[0] + count[8] > 5_000_000, "no traffic")?;
    let small = count[0] <= count[1] * 1514 && count[8] <= count[9] * 1514;
    check(small, format!("packets larger than a wire's: {line}"))?;
    ended(instance)
}

fn a_machine_without_a_network_starts_and_serves_nobody() -> Result<(), Failed> {
    let attach = || Err("a tap was asked for".into());
    let mut sandbox = UnikernelSandbox::new(MACHINE, PathBuf::from(VMM), attach).without_network();
    check(sandbox.name() == "vm-unikernel-none", sandbox.name())?;
    let mut instance = sandbox.launch(&Workload::Idle)?;
    instance.await_ready(PATIENCE)?;
    check(instance.server().is_none(), "it has an address")?;
    let stages = instance.destroy().map_err(|errors| format!("{errors:?}"))?;
    check(stages.at(Stage::Announced).is_some() && stages.at(Stage::Answered).is_none(), format!("{stages:?}"))?;
    let refused = matches!(sandbox.launch(&Workload::Serve { port: PORT }), Err(LaunchError::Unsupported(_)));
    check(refused, "a server that nobody can reach was launched")
}

fn ended(instance: Instance) -> Result<(), Failed> {
    instance.destroy().map(drop).map_err(|errors| format!("{errors:?}").into())
}

/// What was being done when it failed: a deadline that has passed says no more than `Resource temporarily unavailable`.
fn at(what: impl Display) -> impl FnOnce(std::io::Error) -> Failed {
    move |error| format!("{what}: {error}").into()
}

fn asked(operation: Operation, length: u64) -> Result<TcpStream, Failed> {
    let asking = |what: &'static str| at(format!("{what} for {operation:?} of {length} bytes"));
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((GUEST, PORT)), PATIENCE).map_err(asking("connect"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&Request { operation, length }.encode()).map_err(asking("ask"))?;
    Ok(stream)
}

fn answered(mut stream: &TcpStream) -> Result<u64, Failed> {
    let mut bytes = [0; Answer::SIZE];
    stream.read_exact(&mut bytes).map_err(at("read an answer"))?;
    Ok(Answer::decode(&bytes)?.value)
}

/// All that comes until the other side closes.
fn all(mut stream: &TcpStream, length: usize) -> Result<Vec<u8>, Failed> {
    let mut received = Vec::new();
    let read = stream.read_to_end(&mut received);
    read.map_err(at(format!("read {length} bytes, of which {} have come", received.len())))?;
    Ok(received)
}

/// Writes all, and tells how much of it could be written.
fn put(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), Failed> {
    let mut written = 0;
    while written < bytes.len() {
        let count = stream.write(&bytes[written..]);
        written += count.map_err(at(format!("write {} bytes, of which {written} are gone", bytes.len())))?;
    }
    Ok(())
}

/// Bytes that repeat only after a long while, so that a lost or doubled piece shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Runs one kind of traffic with lengths around what is special: nothing, a byte, a segment, a socket buffer, many of them.
fn payloads(housing: Housing, traffic: fn(usize) -> Result<(), Failed>) -> Result<(), Failed> {
    let instance = served(housing)?;
    for length in [1, 1459, 1460, 1461, 65_536, (1 << 20) - 1, 1 << 20, 20_000_000] {
        traffic(length)?;
    }
    ended(instance)
}

fn source(length: usize) -> Result<(), Failed> {
    let received = all(&asked(Operation::Source, length as u64)?, length)?;
    check(received.len() == length, format!("{} bytes of {length}", received.len()))?;
    check(received.iter().all(|byte| *byte == 0x5a), "wrong bytes")
}

fn sink(length: usize) -> Result<(), Failed> {
    let bytes = pattern(length);
    let stream = asked(Operation::Sink, length as u64)?;
    put(&stream, &bytes)?;
    check(answered(&stream)? == length as u64, "a wrong count with a length")?;
    let stream = asked(Operation::Sink, 0)?;
    put(&stream, &bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    check(answered(&stream)? == length as u64, "a wrong count without a length")
}

fn echo(length: usize) -> Result<(), Failed> {
    let bytes = pattern(length);
    let stream = asked(Operation::Echo, 0)?;
    let writer = stream.try_clone()?;
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || {
        let put = put(&writer, &sent).map_err(|failed| failed.message().map(str::to_owned));
        put.and_then(|()| writer.shutdown(std::net::Shutdown::Write).map_err(|error| Some(error.to_string())))
    });
    let received = all(&stream, length);
    let written = writing.join().map_err(|_| "the writer panicked")?;
    let received = received.map_err(|failed| format!("{}; the writer: {written:?}", failed.message().unwrap_or("")))?;
    written.map_err(Option::unwrap_or_default)?;
    check(received == bytes, format!("other bytes came back ({} of {length})", received.len()))
}

/// Each kind of work that needs no kernel, against the same code in this process.
fn work(housing: Housing) -> Result<(), Failed> {
    let instance = served(housing)?;
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.needs_kernel()) {
        let bytes = if kind.least_memory() == 0 { 0 } else { 20 << 20 };
        let task = Task { kind, pages: Pages::Usual, bytes, seed: 5 };
        let mut memory = vec![0; bytes as usize / size_of::<u64>()];
        let mut job = Job::prepare(&task, &mut memory).ok_or("not prepared here")?;
        let mut worker = Worker::begin(SocketAddr::from((GUEST, PORT)), &task, PATIENCE)?;
        for rounds in [1, 20] {
            (0..rounds).for_each(|_| job.round(&mut memory));
            let worked = worker.work(rounds)?;
            check(worked.value == job.value(), format!("{kind:?}: {worked:?} instead of {:#x}", job.value()))?;
            // Of the guest's clock no more is asked than that it goes on; it counts microseconds.
            check(rounds == 1 || worked.inside > 0, format!("{kind:?}: {worked:?}"))?;
        }
        answered(&asked(Operation::Hello, 0)?)?;
    }
    ended(instance)
}

fn work_that_it_cannot_do_is_refused() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let task = |kind, bytes| Task { kind, pages: Pages::Usual, bytes, seed: 5 };
    for task in [
        task(Kind::SystemCalls, 0),
        task(Kind::SmallFile, 0),
        task(Kind::LargeFile, 0),
        // As much as the whole machine has, of which the connections have most.
        task(Kind::Stream, MEMORY),
        Task { pages: Pages::Huge, ..task(Kind::Chase, 4096) },
    ] {
        match Worker::begin(SocketAddr::from((GUEST, PORT)), &task, PATIENCE) {
            Err(WorkError::Refused { refusal: Refusal::Memory { .. }, .. }) if task.bytes == MEMORY => {}
            Err(WorkError::Refused { refusal: Refusal::Unsupported, .. }) if task.bytes != MEMORY => {}
            other => return Err(format!("{task:?}: {other:?}").into()),
        }
    }
    // An order without end, from a client that goes away: the place is free again, and the guest comes to rest.
    let integer = task(Kind::Integer, 0);
    let mut endless = asked(Operation::Work, 0)?;
    endless.write_all(&integer.encode())?;
    endless.read_exact(&mut [0; Report::SIZE])?;
    endless.write_all(&Rounds(u64::MAX).encode())?;
    answered(&asked(Operation::Hello, 0)?)?;
    drop(endless);
    let began = Instant::now();
    let mut worker = loop {
        match Worker::begin(SocketAddr::from((GUEST, PORT)), &integer, PATIENCE) {
            Err(WorkError::Refused { refusal: Refusal::Busy, .. }) if began.elapsed() < PATIENCE => {}
            worker => break worker?,
        }
    };
    worker.work(1)?;
    ended(instance)
}

/// From inside to a server on the host's side of the tap, and to where there is none.
fn connects(housing: Housing) -> Result<(), Failed> {
    let instance = served(housing)?;
    let sockets = isobench_workload::server::Sockets::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let port = sockets.address()?.port();
    std::thread::spawn(move || sockets.serve());
    let met = |address: [u8; 4], port, patience| {
        client::connect(SocketAddr::from((GUEST, PORT)), &Target { address, port, patience }, PATIENCE)
    };
    for _ in 0..20 {
        let encounter = met([172, 17, 0, 1], port, 20_000_000)?;
        check(encounter == Encounter::Answered { seen: GUEST.to_bits() }, format!("{encounter:?}"))?;
    }
    let encounter = met([172, 17, 0, 1], 1, 20_000_000)?;
    check(encounter == Encounter::Refused, format!("{encounter:?} at a port without a server"))?;
    // In the network, but nobody's; and in no network that it knows a way to.
    for address in [[172, 17, 9, 9], [192, 0, 2, 1]] {
        let encounter = met(address, PORT, 100)?;
        check(encounter == Encounter::Silent, format!("{encounter:?} from {address:?}"))?;
    }
    answered(&asked(Operation::Hello, 0)?)?;
    ended(instance)
}

fn every_stage_is_stamped_in_order() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let stages = instance.destroy().map_err(|errors| format!("{errors:?}"))?;
    let expected = [
        Stage::Started,
        Stage::VmmEntered,
        Stage::VmmReady,
        Stage::GuestEntered,
        Stage::Listening,
        Stage::Announced,
        Stage::Answered,
        Stage::Ending,
        Stage::Reaped,
        Stage::Gone,
    ];
    let mut times = Vec::new();
    for stage in expected {
        times.push(stages.at(stage).ok_or_else(|| format!("{} is missing", stage.name()))?);
    }
    check(times.is_sorted(), format!("out of order: {times:?}"))
}

fn connections_come_and_go() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    for _ in 0..200 {
        let stream = asked(Operation::Hello, 0)?;
        check(answered(&stream)? == u64::from(Ipv4Addr::new(172, 17, 0, 1).to_bits()), "another address")?;
    }
    // Several at once, each with a conversation of its own.
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(asked(Operation::Echo, 0)?);
    }
    for round in 0..50_u8 {
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[round, index as u8])?;
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut bytes = [0; 2];
            stream.read_exact(&mut bytes)?;
            check(bytes == [round, index as u8], "bytes of another connection")?;
        }
    }
    drop(streams);
    ended(instance)
}

fn a_stray_peer_is_refused_alone() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let other = asked(Operation::Hello, 0)?;
    let mut stray = TcpStream::connect((GUEST, PORT))?;
    stray.set_read_timeout(Some(PATIENCE))?;
    stray.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    check(matches!(stray.read(&mut [0; 1]), Ok(0) | Err(_)), "the stray peer was answered")?;
    answered(&other)?;
    // Who connects and says nothing, or half a request, only takes up one connection.
    let _silent = TcpStream::connect((GUEST, PORT))?;
    TcpStream::connect((GUEST, PORT))?.write_all(b"ISB")?;
    answered(&asked(Operation::Hello, 0)?)?;
    ended(instance)
}

/// CPU time of a process in clock ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: i32) -> Result<u64, Failed> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    Ok(fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn an_idle_server_sleeps() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let before = ticks(instance.process().pid())?;
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(instance.process().pid())? - before;
    check(used <= 5, format!("{used} ticks in an idle second"))?;
    ended(instance)
}

/// A guest that is sent much moves frames on its processor's own thread; little must come through as before, and no answer may stay
/// behind where nobody moves it.
fn much_and_little_take_turns() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let mut echo = asked(Operation::Echo, 0)?;
    for round in 0..20_u8 {
        sink(3_000_000)?;
        for _ in 0..3 {
            echo.write_all(&[round])?;
            let mut byte = [0];
            echo.read_exact(&mut byte)?;
            check(byte == [round], "another byte came back")?;
        }
        if round % 5 == 4 {
            // Long enough for both threads to sleep.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let before = ticks(instance.process().pid())?;
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(instance.process().pid())? - before;
    check(used <= 5, format!("{used} ticks in an idle second after much was sent"))?;
    ended(instance)
}

/// Bytes that a thread has read by system calls (proc_pid_io(5)).
fn read_by(pid: i32, thread: i32) -> Result<u64, Failed> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/io"))?;
    let count = text.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse().ok());
    Ok(count.ok_or_else(|| format!("no count of bytes: {text}"))?)
}

/// The thread that runs the guest reads and writes frames in exchanges alone, and beside them some bytes of events. How many frames come
/// in exchanges depends on how busy the machine is; of so much, some do.
fn much_is_read_on_the_processors_thread() -> Result<(), Failed> {
    const LENGTH: usize = 32 << 20;
    const SOME: u64 = 1 << 20;
    let instance = served(MACHINE)?;
    let pid = instance.process().pid();
    // The process's main thread has its number.
    let before = read_by(pid, pid)?;
    let mut echo = asked(Operation::Echo, 0)?;
    for _ in 0..100 {
        echo.write_all(&[1])?;
        echo.read_exact(&mut [0])?;
    }
    let little = read_by(pid, pid)? - before;
    check(little < SOME / 16, format!("{little} bytes were read there for a guest that is sent little"))?;
    sink(LENGTH)?;
    let much = read_by(pid, pid)? - before;
    check(much > SOME, format!("{much} bytes were read there for a guest that is sent {LENGTH} twice"))?;
    ended(instance)
}

/// A guest that sends much, is sent much and does either in turns, on several connections at once: nobody may be left behind where the
/// threads that move its frames change places.
/// Together they have more to send than the queue takes, and each gets all that it asked for, also one that asks for little.
fn connections_that_send_share_the_queue() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let lengths = [30_000_000, 30_000_000, 30_000_000, 5_000_000, 10];
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads = lengths.map(|length| scope.spawn(move || source(length).map_err(|failed| format!("{failed:?}"))));
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread of the test panicked")).collect()
    });
    check(ends.iter().all(|end| matches!(end, Ok(Ok(())))), format!("{ends:?}"))?;
    ended(instance)
}

fn both_directions_go_on_at_once() -> Result<(), Failed> {
    const ROUNDS: usize = 40;
    let instance = served(MACHINE)?;
    let traffic: [Test; 3] = [
        || (0..ROUNDS).try_for_each(|round| source([3_000_000, 100][round % 2])),
        || (0..ROUNDS).try_for_each(|round| sink([10, 1_500_000][round % 2])),
        || (0..ROUNDS).try_for_each(|round| echo([700_000, 1, 40_000][round % 3])),
    ];
    for test in traffic {
        test()?;
    }
    let at_once =
        traffic.map(|test| std::thread::spawn(move || test().map_err(|failed| failed.message().map(str::to_owned))));
    // All of them: where one is left behind, how the others fared tells more.
    let ends: Vec<_> =
        at_once.into_iter().map(|thread| thread.join().map_err(|_| "a thread of the test panicked")).collect();
    check(ends.iter().all(|end| matches!(end, Ok(Ok(())))), format!("source, sink and echo at once: {ends:?}"))?;
    ended(instance)
}

/// In its memory lies a piece of the monitor's file, of which it has touched some and has no page for itself (proc_pid_smaps(5)).
fn machines_share_the_image() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let text = std::fs::read_to_string(format!("/proc/{}/smaps", instance.process().pid()))?;
    let program = std::fs::canonicalize(VMM)?;
    let size = |mapping: &str, field: &str| {
        let line = mapping.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB")?.trim().parse().ok());
        line.unwrap_or(u64::MAX)
    };
    let mappings = text.split_inclusive("VmFlags").filter(|mapping| {
        let place = mapping.lines().find(|line| line.contains(" rw-p "));
        place.is_some_and(|line| line.ends_with(&program.to_string_lossy().into_owned()))
    });
    // Constants and all; the file's header and its table of sections are in no memory.
    let whole = UNIKERNEL.len() as u64 / 1024 - 8;
    let shared = mappings.filter(|mapping| size(mapping, "Size:") >= whole && size(mapping, "Anonymous:") == 0).count();
    check(shared == 1, text)?;
    ended(instance)
}

/// The vCPU's thread serves by itself, so that the card's may have to begin yet when it has answered.
fn every_thread_is_confined() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let mut threads = 0;
    let began = Instant::now();
    for thread in std::fs::read_dir(format!("/proc/{}/task", instance.process().pid()))? {
        let path = thread?.path().join("status");
        while !std::fs::read_to_string(&path)?.contains("Seccomp:\t2\n") {
            check(began.elapsed() < PATIENCE, "a thread without a filter")?;
            std::thread::yield_now();
        }
        threads += 1;
    }
    // The vCPU's and the card's; newer kernels add one of KVM's own.
    check(threads >= 2, format!("{threads} threads instead of 2"))?;
    ended(instance)
}

fn nothing_is_left() -> Result<(), Failed> {
    let instance = served(MACHINE)?;
    let pid = instance.process().pid();
    let links = || std::fs::read_to_string("/proc/thread-self/net/dev");
    check(links()?.contains("guest0"), "there is no tap to begin with")?;
    // A connection that is open when the end comes.
    let stream = asked(Operation::Echo, 0)?;
    ended(instance)?;
    check(!links()?.contains("guest0"), "the tap is left")?;
    check(!PathBuf::from(format!("/proc/{pid}")).exists(), "the process is left")?;
    drop(stream);
    Ok(())
}

fn what_it_cannot_do_is_refused() -> Result<(), Failed> {
    let mut sandbox = UnikernelSandbox::new(MACHINE, PathBuf::from(VMM), attach);
    for workload in [Workload::Probe(Probe::default()), Workload::Program { arguments: vec!["/bin/true".into()] }] {
        let refused = matches!(sandbox.launch(&workload), Err(LaunchError::Unsupported(_)));
        check(refused, format!("{workload:?} was not refused"))?;
    }
    let mut nothing = UnikernelSandbox::new(MACHINE, PathBuf::from("/nonexistent"), || Err("no tap today".into()));
    let error = nothing.launch(&Workload::Idle).err().ok_or("launched without a tap")?;
    check(error.to_string() == "launch vm-unikernel: attach a tap", error.to_string())
}

fn the_judge_is_quick() -> Result<(), Failed> {
    let began = Instant::now();
    let verdict = judge();
    check(began.elapsed() < Duration::from_secs(2), format!("took {:?}", began.elapsed()))?;
    check(verdict.runs_unikernel(), verdict.to_string())
}

/// Runs the program without a network to its end.
fn ran(words: &str) -> Result<(Output, Duration), Failed> {
    let began = Instant::now();
    let output = Command::new(VMM).args(words.split(' ')).output()?;
    Ok((output, began.elapsed()))
}

fn ending(words: &str, code: i32, sentence: &str) -> Result<(), Failed> {
    let (output, _) = ran(words)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.code() == Some(code), format!("{} instead of {code}: {text}", output.status))?;
    check(text.contains(sentence) && text.lines().count() == 1, text)
}

fn exit_ends_with_status_0() -> Result<(), Failed> {
    let (output, _) = ran("unikernel --workload exit")?;
    check(output.status.success() && output.stderr.is_empty(), format!("{output:?}"))?;
    let stages = announcement::parse(&String::from_utf8_lossy(&output.stdout)).ok_or("no ready line")?;
    check(stages.at(Stage::Listening).is_some(), "not said to be ready")
}

fn a_wild_pointer_is_told_with_registers() -> Result<(), Failed> {
    ending("unikernel --workload wild-pointer", 101, "page fault (vector 14, error 0x6) on address 0x0 at rip=0x10")?;
    ending("unikernel --workload wild-pointer", 101, " rdi=0x0 ")
}

fn a_stack_overflow_is_told() -> Result<(), Failed> {
    ending("unikernel --workload stack-overflow", 101, "the guest crashed: stack overflow at rip=0x10")
}

fn a_panic_is_told_with_its_message() -> Result<(), Failed> {
    ending("unikernel --workload panic", 101, "the guest panicked: ")?;
    ending("unikernel --workload panic", 101, "asked to panic")?;
    ending("unikernel --workload panic", 101, " at rip=0x10")
}

fn a_halt_is_told_with_registers() -> Result<(), Failed> {
    ending("unikernel --workload halt", 101, "general protection fault (vector 13, error 0x0) at rip=0x10")?;
    ending("unikernel --workload halt", 101, " r15=0x")
}

fn a_wild_jump_is_told_with_registers() -> Result<(), Failed> {
    ending("unikernel --workload wild-jump", 101, "page fault (vector 14, error 0x15) on address 0x1000 at rip=0x1000 ")
}

fn a_looping_guest_ends_at_its_deadline() -> Result<(), Failed> {
    ending("unikernel --workload loop --deadline 0.2", 124, "the guest was ended at its deadline, at rip=0x10")?;
    let (_, taken) = ran("unikernel --workload loop --deadline 0.2")?;
    check((0.2..5.0).contains(&taken.as_secs_f64()), format!("ended after {taken:?}"))
}

fn an_idle_guest_ends_at_its_deadline() -> Result<(), Failed> {
    ending("unikernel --workload idle --deadline 0.2", 124, "the guest was ended at its deadline")
}

fn bad_options_are_one_sentence() -> Result<(), Failed> {
    ending(
        "unikernel --memory 3M --workload exit",
        1,
        "guest memory of 3145728 bytes: it must be a multiple of 2 MiB",
    )?;
    ending("unikernel --workload serve:7000", 1, "a guest that serves needs --tap-fd, --mac and --address")?;
    let words = "--mac 02:00:00:00:00:05 --address 172.17.0.5/16 --tap-fd 0";
    ending(&format!("unikernel {words}"), 1, "of the tap (it must be opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)")
}
