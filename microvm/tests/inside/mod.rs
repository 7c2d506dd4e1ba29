//! This test program as /init of a guest: looks at the machine from within and says on the console what it finds, in lines that
//! the monitor hands on.

use isobench_workload::guest::{AWAITS, IDENTITY};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const ARGUMENTS: &str = "/isobench/arguments";

type Failure = Box<dyn Error>;

/// Whether this process is a guest's /init.
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(ARGUMENTS).exists()
}

/// Does what the arguments say, and ends the guest with a status.
pub(crate) fn run() -> ! {
    let status = match work() {
        Ok(()) => 0,
        Err(error) => {
            println!("inside: {error}");
            1
        }
    };
    println!("isobench: exit {status}");
    let _ = rustix::termios::tcdrain(rustix::stdio::stdout());
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}

fn work() -> Result<(), Failure> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        match rustix::mount::mount(kind, target, kind, MountFlags::empty(), None) {
            // A kernel that mounts /dev itself has done so.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(format!("mount {target}: {error}").into()),
        }
    }
    load_modules()?;
    for task in fs::read_to_string(ARGUMENTS)?.split('\0') {
        match task {
            "disks" => disks()?,
            "shrinking-disk" => shrinking_disk()?,
            "processors" => processors()?,
            "die-on-the-second" => die_on_the_second()?,
            "spin-on-all" => spin_on_all()?,
            "random" => random()?,
            "balloon" => balloon()?,
            "free" => free()?,
            "disk-of-a-clone" => disk_of_a_clone()?,
            _ => return Err(format!("unknown task `{task}`").into()),
        }
    }
    Ok(())
}

fn load_modules() -> Result<(), Failure> {
    let mut files: Vec<_> =
        fs::read_dir("/isobench/modules")?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    for file in files {
        let fd = rustix::fs::open(&file, OFlags::RDONLY, Mode::empty())?;
        let loaded = rustix::system::finit_module(&fd, c"", 0);
        loaded.map_err(|error| format!("load the module {}: {error}", file.display()))?;
    }
    Ok(())
}

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Reads vda, writes what it read, turned round, to its second half, and flushes; finds vdb read-only.
fn disks() -> Result<(), Failure> {
    let disk = File::options().read(true).write(true).open("/dev/vda")?;
    let size: u64 = fs::read_to_string("/sys/block/vda/size")?.trim().parse()?;
    let half = size * 512 / 2;
    let mut bytes = vec![0; half as usize];
    disk.read_exact_at(&mut bytes, 0)?;
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    disk.write_all_at(&bytes, half)?;
    disk.sync_all()?;
    expect(disk.write_all_at(&[1], size * 512).is_err(), "vda is written beyond its end")?;
    let name = fs::read_to_string("/sys/block/vda/serial")?;
    expect(name.trim() == "isobench-disk-0", &format!("vda has the serial number {name}"))?;
    expect(fs::read_to_string("/sys/block/vdb/ro")?.trim() == "1", "vdb is not read-only")?;
    let refused = File::options().write(true).open("/dev/vdb").and_then(|disk| disk.write_all_at(&[1; 512], 0));
    expect(refused.is_err(), "vdb is written")?;
    let first = fs::read("/dev/vdb")?;
    println!("{{\"sectors\":{size},\"sum\":{}}}", first.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    Ok(())
}

/// Reads the end of vda until it is gone, and then its beginning, which is not.
fn shrinking_disk() -> Result<(), Failure> {
    const SECTOR: usize = 512;
    // Past the cache, which would keep what was read once (open(2), O_DIRECT).
    let disk = File::from(rustix::fs::open("/dev/vda", OFlags::RDONLY | OFlags::DIRECT, Mode::empty())?);
    let size: u64 = fs::read_to_string("/sys/block/vda/size")?.trim().parse()?;
    let mut memory = [0; 2 * SECTOR];
    let aligned = memory.as_ptr().align_offset(SECTOR);
    let sector = &mut memory[aligned..aligned + SECTOR];
    let last = (size - 1) * SECTOR as u64;
    disk.read_exact_at(sector, last)?;
    println!("{{\"reading\":true}}");
    while disk.read_exact_at(sector, last).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    disk.read_exact_at(sector, 0)?;
    println!("{{\"failed\":true}}");
    Ok(())
}

/// Reads vda, and again each time that this guest has become a clone.
fn disk_of_a_clone() -> Result<(), Failure> {
    // The kernel's messages have lines of their own.
    println!("{AWAITS}\n{{\"waiting\":true}}");
    let mut line = String::new();
    while std::io::stdin().lock().read_line(&mut line)? != 0 {
        line.clear();
        let identity = fs::read(IDENTITY)?;
        expect(identity.starts_with(b"{"), "there is nothing of who it is")?;
        // Past the cache, so that the device is asked.
        let disk = File::from(rustix::fs::open("/dev/vda", OFlags::RDONLY | OFlags::DIRECT, Mode::empty())?);
        let mut memory = [0; 8192];
        let aligned = memory.as_ptr().align_offset(4096);
        let page = &mut memory[aligned..aligned + 4096];
        disk.read_exact_at(page, 0)?;
        println!("{{\"sum\":{}}}", page.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    }
    Ok(())
}

fn pin_to(processor: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// Works on every processor that the kernel has found.
fn processors() -> Result<(), Failure> {
    let found = fs::read_to_string("/proc/cpuinfo")?.matches("processor\t:").count();
    for number in 0..found {
        pin_to(number)?;
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The 39th field is the processor on which it last ran (proc_pid_stat(5)); the second one ends with a parenthesis.
        let field = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(36));
        expect(field == Some(&number.to_string()), &format!("not on processor {number}: {stat}"))?;
    }
    println!("{{\"processors\":{found}}}");
    Ok(())
}

/// Has the kernel panic on the second processor, as it does where /init ends.
#[allow(clippy::exit, reason = "it is what is tested")]
fn die_on_the_second() -> Result<(), Failure> {
    pin_to(1)?;
    std::process::exit(3);
}

fn spin_on_all() -> Result<(), Failure> {
    for number in 0..std::thread::available_parallelism()?.get() {
        std::thread::spawn(move || {
            let _ = pin_to(number);
            loop {
                std::hint::spin_loop();
            }
        });
    }
    println!("{{\"spinning\":true}}");
    loop {
        std::thread::park();
    }
}

/// Reads the device that the kernel takes its random numbers from.
fn random() -> Result<(), Failure> {
    let source = fs::read_to_string("/sys/class/misc/hw_random/rng_current")?;
    expect(source.starts_with("virtio_rng"), &format!("random numbers come from {source}"))?;
    let mut halves = [[0; 32]; 2];
    let mut device = File::open("/dev/hwrng")?;
    halves.iter_mut().try_for_each(|half| device.read_exact(half))?;
    expect(halves[0] != halves[1] && !halves.contains(&[0; 32]), "the random numbers are none")?;
    println!("{{\"random\":true}}");
    Ok(())
}

/// Bytes that a guest touches, and that it is then asked to leave unused.
const MEMORY: usize = 64 << 20;

/// Uses memory and frees it again.
fn touch() {
    // One byte of each page is enough, and not too slow without optimisation.
    let mut bytes = vec![0_u8; MEMORY];
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&bytes);
}

fn free_memory() -> Result<usize, Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:")).ok_or("no MemFree")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

fn await_free(what: &str, holds: impl Fn(usize) -> bool) -> Result<(), Failure> {
    // The monitor's deadline is the end of all patience.
    while !holds(free_memory()?) {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{{\"{what}\":true}}");
    Ok(())
}

/// Touches memory, loses it to the balloon, gets it back, and touches it again.
fn balloon() -> Result<(), Failure> {
    touch();
    let before = free_memory()?;
    println!("{{\"touched\":true}}");
    await_free("inflated", |free| free + MEMORY * 3 / 4 < before)?;
    await_free("deflated", |free| free + MEMORY / 4 > before)?;
    touch();
    Ok(())
}

/// Touches memory and leaves it unused.
fn free() -> Result<(), Failure> {
    touch();
    // So that the machine can be saved, and looked at.
    println!("{AWAITS}");
    println!("{{\"touched\":true}}");
    // What a test prints that waited in vain: whether time goes on in here, and what there is to be given back.
    loop {
        std::thread::sleep(Duration::from_secs(10));
        let (uptime, blocks) = (fs::read_to_string("/proc/uptime")?, fs::read_to_string("/proc/buddyinfo")?);
        println!("{}", serde_json::json!({ "uptime": uptime.trim(), "free-blocks": blocks.trim() }));
    }
}
