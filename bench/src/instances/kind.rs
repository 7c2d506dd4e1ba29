//! The two kinds of instances, and the words for them.

/// What an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A container.
    Container,
    /// A virtual machine.
    Machine,
}

impl Kind {
    /// What it is called in a sentence.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Machine => "virtual machine",
        }
    }

    /// The command that looks after it.
    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Machine => "vm",
        }
    }

    /// What it is called in a table and in a command's usage.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Container => "CONTAINER",
            Self::Machine => "VM",
        }
    }
}
