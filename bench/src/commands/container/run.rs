//! `isobench container run` and `create`.

use super::options::Options;
use crate::commands::{Status, output, status};
use crate::instances::attach::{self, End, Part};
use crate::instances::protocol::{Answer, Order};
use crate::instances::{Container, Kind, OWN_FAILURE, Request, Store};
use anyhow::bail;
use std::os::unix::net::UnixStream;

/// Run a command in a new container
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Arguments {
    /// Do not wait for its end: print its id and go on
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    pub(super) options: Options,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  isobench container run --rm toolbox ip addr                  one command, nothing is left
  isobench container run -it --name lab toolbox sh             a shell
  isobench container run -d --name web -p 8080:80 toolbox httpd -f
  isobench container run --rm -m 64m --cpus 0.5 --pids-limit 32 toolbox sh -c 'cat /proc/self/cgroup'
  isobench container run --rm --network none --cap-add NET_ADMIN toolbox ip link

The root is never changed: what the container writes is its own, and goes when it is removed.";

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { detach, options } = arguments;
    let part = Part { terminal: options.own.tty, input: options.own.interactive && !detach, signals: true };
    attach::check_terminal(part.terminal, part.input)?;
    let (name, request) = options.request(!detach)?;
    begin(&name, &request, part, detach)
}

/// Makes an instance and starts it; ends as it does, unless it is left alone.
pub(in crate::commands) fn begin(name: &str, request: &Request, part: Part, detach: bool) -> anyhow::Result<Status> {
    let store = Store::of(request.kind())?;
    store.tell_once_without_control_groups();
    let container = store.create(name, request)?;
    let order = Order::Attach { input: part.input, output: !detach, size: attach::size() };
    let socket = attach::start(&container, &order)?;
    if detach { await_start(&container, &socket) } else { finish(attach::attend(socket, part)?) }
}

/// Waits until a container runs, and prints its id.
fn await_start(container: &Container, socket: &UnixStream) -> anyhow::Result<Status> {
    match attach::answer(socket)? {
        Some(Answer::Failed { message, code }) => fail(&message, code),
        Some(_) => {
            output::print(&format!("{}\n", container.request.id))?;
            Ok(Status::Success)
        }
        None => bail!("the supervisor of the {} ended before it began", container.title()),
    }
}

pub(super) fn create(options: Options) -> anyhow::Result<Status> {
    let (name, request) = options.request(false)?;
    let container = Store::of(Kind::Container)?.create(&name, &request)?;
    output::print(&format!("{}\n", container.request.id))?;
    Ok(Status::Success)
}

/// Ends as the container did.
pub(super) fn finish(end: End) -> anyhow::Result<Status> {
    match end {
        End::Exited(code) => Ok(Status::Program(code as u8)),
        End::Detached => Ok(Status::Success),
        End::Deaf => fail("it was told three times to end, and goes on by itself", OWN_FAILURE),
        End::Failed { message, code } => fail(&message, code),
        End::Lost => {
            status::say("the supervisor was killed, and with it what it looked after");
            Ok(Status::Program(137))
        }
    }
}

pub(super) fn fail(message: &str, code: i32) -> anyhow::Result<Status> {
    status::say(message);
    Ok(Status::Program(code as u8))
}
