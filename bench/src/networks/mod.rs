//! Networks that stay until they are removed, used by several processes without a daemon.
//!
//! State is files below the state directory and locks that the kernel frees when their holder dies:
//!
//! | file | what |
//! |---|---|
//! | `networks.lock` | held while a network is made or removed |
//! | `networks/NAME/network.json` | its settings ([`Settings`]), written before anything is made |
//! | `networks/NAME/leases` | a locked byte for each address that somebody has |
//! | `networks/NAME/endpoints/ADDRESS.json` | who has it, its names and ports ([`Member`]); of a dead holder where the byte is not locked |
//! | `networks/NAME/names/NAME/ADDRESS` | an empty file: this name leads to this address, as long as the byte is locked |
//! | `names.lock`, `names.socket` | the name server's lock, and where it takes orders ([`server`]) |
//! | `ports` | a locked byte for each published port |
//! | `forwarding.json` | whether packets were forwarded, and router advertisements taken, before there was a network |
//!
//! A command that launches a container does this:
//! ```ignore
//! let store = networks::Store::open(&home::state()?)?;
//! let network = store.network("web")?;                        // `bridge` is made on first use
//! let joining = Joining { instance: "one".into(), aliases: vec!["www".into()], ..Joining::default() };
//! let (endpoint, mut membership) = network.endpoint(&joining)?; // an address, and names that lead to it
//! membership.publish(&["8080:80".parse()?])?;
//! specification.network = NetworkMode::Attached(endpoint);     // then launch; network.resolver() for /etc/resolv.conf
//! // … and once the container's process has ended:
//! drop(membership);                                            // names and ports go first,
//! Box::new(launched.endpoint).release()?;                      // then the address.
//! ```
//! The process that holds an endpoint must not die before the container does, or take it along: the address is free as soon
//! as its holder is gone.

mod endpoint;
mod names;
mod network;
mod port;
pub mod server;
mod settings;
mod store;

pub use endpoint::{Connection, Joining, Member, Membership};
pub use names::check_name;
pub use network::Network;
pub use port::PortMapping;
pub use settings::{Request, Settings};
pub use store::Store;

/// Something was asked for that there is not, or that cannot be: said in one sentence, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A refusal as an error.
pub(crate) fn refuse<T>(sentence: impl Into<String>) -> anyhow::Result<T> {
    Err(Refusal(sentence.into()).into())
}

/// Whether the user asked for something that cannot be, rather than that something failed.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    use isobench_runtime::network::NetworkError;
    let refused = |error: &NetworkError| !matches!(error, NetworkError::System { .. } | NetworkError::Malformed { .. });
    error.chain().any(|cause| {
        cause.downcast_ref::<Refusal>().is_some() || cause.downcast_ref::<NetworkError>().is_some_and(refused)
    })
}
