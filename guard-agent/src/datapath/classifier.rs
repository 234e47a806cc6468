//! The program as it is loaded. Where it has to go before itself, it is loaded once more, with the same
//! maps: what is on ports already stays there.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    programs::{ProgramError, SchedClassifier, links::FdLink},
};
use guard_ebpf::abi;

use super::KernelError;

/// The program, and which are its instances.
pub(super) struct Program {
    /// Has the maps that nobody has taken: the program is loaded again with the same.
    ebpf: Ebpf,
    id: u32,
    own: BTreeSet<u32>,
}

impl Program {
    /// Loads the program.
    pub(super) fn load(mut ebpf: Ebpf) -> Result<Self, KernelError> {
        let classifier = classifier(&mut ebpf)?;
        classifier.load()?;
        let id = classifier.info()?.id();
        Ok(Self { ebpf, id, own: BTreeSet::from([id]) })
    }

    /// The object that the program is of.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The kernel's id of the instance that is put on ports.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether an instance is of this agent.
    pub(super) fn is_own(&self, id: u32) -> bool {
        self.own.contains(&id)
    }

    /// The descriptor of that.
    pub(super) fn fd(&mut self) -> Result<BorrowedFd<'_>, ProgramError> {
        self.classifier()?.fd().map(|fd| fd.as_fd())
    }

    /// As aya has it.
    pub(super) fn classifier(&mut self) -> Result<&mut SchedClassifier, ProgramError> {
        let program = self.ebpf.program_mut(abi::PROGRAM).ok_or(ProgramError::NotLoaded)?;
        program.try_into()
    }

    /// Puts the program under a link. Returns its id.
    pub(super) fn replace(&mut self, link: FdLink) -> Result<u32, ProgramError> {
        let link = link.try_into().map_err(|_| ProgramError::NotAttached)?;
        let classifier = self.classifier()?;
        let id = classifier.attach_to_link(link)?;
        // The pin keeps it.
        drop(classifier.take_link(id)?);
        Ok(self.id)
    }

    /// Loads it once more.
    pub(super) fn renew(&mut self) -> Result<(), ProgramError> {
        let classifier = self.classifier()?;
        // It is not loaded where the last try to do so has failed.
        let _ = classifier.unload();
        classifier.load()?;
        self.id = classifier.info()?.id();
        self.own.insert(self.id);
        Ok(())
    }
}

fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(abi::PROGRAM).ok_or(KernelError::Missing("classifier"))?;
    Ok(program.try_into()?)
}
