//! Why a container could not be planned or launched.

use crate::child::Step;
use rustix::io::Errno;

/// What went wrong, with operation and object; the system's own word is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification asks for something that makes no sense.
    #[error("{what} {why}")]
    Invalid {
        /// The part of the specification.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A system call of the launching process failed.
    #[error("{operation} {object}")]
    System {
        /// The operation.
        operation: &'static str,
        /// Its object.
        object: String,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// A step of the new process failed before it became the program.
    #[error("inside the container: {step} {object}")]
    Child {
        /// The step of the recipe.
        step: Step,
        /// Its object.
        object: String,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// The network could not be connected to the new container.
    #[error("connect the container to its network")]
    Network(#[from] crate::network::NetworkError),
    /// The container's process could not be handled.
    #[error(transparent)]
    Process(#[from] isobench_workload::ProcessError),
}

impl Error {
    /// A failed system call of the launching process.
    pub(crate) fn system(operation: &'static str, object: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let object = object.into();
        move |source| Self::System { operation, object, source }
    }

    /// A failed operation of the standard library.
    pub(crate) fn io(operation: &'static str, object: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let object = object.into();
        move |source| Self::System { operation, object, source: Errno::from_io_error(&source).unwrap_or(Errno::IO) }
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }
}
