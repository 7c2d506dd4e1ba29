//! A monitor that is told on its API socket what guest it is to run: before the guest is started there is one thread, which takes
//! requests here; from then on requests are taken as for any guest that has a control socket.

use crate::configuration::Configuration;
use crate::error::ArgumentError;
use crate::guest::{Guest, not_waiting};
use crate::open::Descriptors;
use crate::values::FileName;
use isobench_microvm::chain;
use isobench_microvm::control::clients::{Clients, Received};
use isobench_microvm::control::protocol::{self, Failure, FailureKind, Id, Request, VERSION};
use isobench_microvm::control::{Control, Description, Starting, State, too_long};
use isobench_workload::Stages;
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Takes requests until a guest is started, and runs it to its end.
pub(crate) fn run(name: &FileName, stages: Stages) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let listener = Descriptors::inherited(crate::handed_in()).listener("api-socket", name)?;
    let mut clients = Clients::new(listener).map_err(not_waiting("api-socket"))?;
    let mut created = None;
    loop {
        let Some(Received { client, line, descriptors }) = clients.next(None)? else { continue };
        let (id, request) = match &line {
            Some(line) => protocol::read(line),
            None => (Id::default(), Err(too_long())),
        };
        let answer = match request {
            Ok(Request::Start) if created.is_some() => {
                let starting = Starting::new(&clients, client, id)?;
                if let Some((guest, configuration)) = created.take() {
                    return start(guest, configuration, clients, &starting, stages);
                }
                continue;
            }
            Ok(Request::Stop) => {
                clients.answer(client, &protocol::answer_line(&id, &Ok(json!({}))));
                return Ok(ExitCode::SUCCESS);
            }
            request => request.and_then(|request| answer(request, descriptors, &mut created)),
        };
        clients.answer(client, &protocol::answer_line(&id, &answer));
    }
}

fn start(
    mut guest: Guest,
    configuration: Value,
    clients: Clients,
    starting: &Starting,
    stages: Stages,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    guest.set_control(Control::begun(clients, configuration, starting.clone()));
    guest.run(stages).inspect_err(|error| {
        starting.answer(&Err(Failure::new(FailureKind::Failed, chain(error.as_ref()))));
    })
}

fn answer(request: Request, descriptors: Vec<OwnedFd>, created: &mut Option<(Guest, Value)>) -> Result<Value, Failure> {
    match request {
        Request::Describe => {
            let description = Description {
                version: VERSION,
                program: env!("CARGO_PKG_VERSION").into(),
                state: if created.is_some() { State::Created } else { State::NotCreated },
                configuration: created.as_ref().map(|(_, configuration)| configuration.clone()),
                figures: None,
            };
            serde_json::to_value(description).map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))
        }
        Request::Create(_) if created.is_some() => {
            Err(Failure::new(FailureKind::State, "there is a configuration already"))
        }
        Request::Create(configuration) => {
            *created = Some(
                create(&configuration, descriptors)
                    .map_err(|error| Failure::new(FailureKind::Arguments, chain(&error)))?,
            );
            Ok(json!({}))
        }
        Request::Start => Err(Failure::new(FailureKind::State, "there is no configuration yet: `create` gives one")),
        _ => Err(Failure::new(FailureKind::State, "the guest was not started yet")),
    }
}

fn create(configuration: &Value, descriptors: Vec<OwnedFd>) -> Result<(Guest, Value), ArgumentError> {
    let configuration = Configuration::of_text("of the request", &configuration.to_string())?;
    if configuration.control().is_some() {
        let why = "the API socket is where requests are taken".into();
        return Err(ArgumentError::Value { option: "control".into(), why });
    }
    let mut descriptors = Descriptors::sent(descriptors);
    let guest = Guest::open(&configuration, &mut descriptors)?;
    Ok((guest, configuration.json()))
}
