//! The unikernel image: in the program, and from there in guest memory.

use super::{UnikernelError, write};
use crate::memory::MemoryError;
use crate::system;
use std::fs::File;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The unikernel image: a static ELF file for the addresses of [`isobench_guest::contract`].
pub static UNIKERNEL: &[u8] = &IMAGE.0;

/// The image at the beginning of a page, as its segments begin one within it.
#[repr(C, align(4096))]
struct Paged<T>(T);

static IMAGE: Paged<[u8; include_bytes!(env!("ISOBENCH_UNIKERNEL")).len()]> =
    Paged(*include_bytes!(env!("ISOBENCH_UNIKERNEL")));

/// Loads the image, and gives where it begins. What no guest writes to is shared by all machines of this program where its file is given
/// and can be mapped; it is not copied then.
pub(super) fn load(memory: &GuestMemoryMmap, program: Option<&File>) -> Result<u64, UnikernelError> {
    // The fields of elf(5). Whatever the linker script names as a segment is to be loaded.
    const HEADER: usize = 56;
    let word = |at: usize| Some(u64::from_le_bytes(UNIKERNEL.get(at..at + 8)?.try_into().ok()?));
    let header = |number: usize| {
        let at = usize::try_from(word(0x20)?).ok()? + number * HEADER;
        let [offset, size] = [word(at + 0x08)?, word(at + 0x20)?].map(|word| word as usize);
        Some((word(at + 0x10)?, UNIKERNEL.get(offset..offset + size)?))
    };
    let count = UNIKERNEL.get(0x38).copied().unwrap_or_default();
    for number in 0..count.into() {
        let (address, bytes) = header(number).ok_or(UnikernelError::Image)?;
        let whole = match program {
            Some(program) => share(memory, address, bytes, program)?,
            None => 0,
        };
        write(memory, address + whole as u64, &bytes[whole..])?;
    }
    word(0x18).ok_or(UnikernelError::Image)
}

/// Has all machines of this program share the whole pages of a part of the image, and gives how many bytes that are: none where they cannot.
fn share(memory: &GuestMemoryMmap, address: u64, bytes: &'static [u8], program: &File) -> Result<usize, MemoryError> {
    let bytes = &bytes[..bytes.len() / 4096 * 4096];
    let failed = |source| MemoryError::Access { address, source };
    let slice = memory.get_slice(GuestAddress(address), bytes.len()).map_err(failed)?;
    if system::map_constants(&slice, bytes, program).is_err() {
        return Ok(0);
    }
    let mut page = [0; 4096];
    for (at, wanted) in bytes.chunks(page.len()).enumerate() {
        let at = at * page.len();
        slice.read_slice(&mut page, at).map_err(|source| failed(source.into()))?;
        if page != wanted {
            slice.write_slice(wanted, at).map_err(|source| failed(source.into()))?;
        }
    }
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use crate::unikernel::LEAST_MEMORY;
    use isobench_guest::contract::{BUFFERS, IMAGE as START};
    use linux_loader::loader::{Elf, KernelLoader};
    use std::io::Cursor;

    #[test]
    fn the_image_is_loaded_as_another_loader_does_it_with_a_file_to_share_and_without() {
        let loaded = |load: &dyn Fn(&GuestMemoryMmap) -> u64| {
            let memory = memory::create(LEAST_MEMORY).unwrap();
            let entry = load(&memory);
            let mut bytes = vec![0; (BUFFERS - START) as usize];
            memory.read_slice(&mut bytes, GuestAddress(START)).unwrap();
            (entry, bytes)
        };
        let wanted =
            loaded(&|memory| Elf::load(memory, None, &mut Cursor::new(UNIKERNEL), None).unwrap().kernel_load.0);
        let own = File::open("/proc/self/exe").unwrap();
        let zeros = tempfile::tempfile().unwrap();
        zeros.set_len(own.metadata().unwrap().len()).unwrap();
        // In the second lies something else, and of the third nothing can be mapped.
        let files = [own, zeros, File::open("/dev/null").unwrap()];
        for program in [None].into_iter().chain(files.iter().map(Some)) {
            assert!(loaded(&|memory| load(memory, program).unwrap()) == wanted, "{program:?}");
        }
    }
}
