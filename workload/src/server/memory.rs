//! Memory for work: taken on request and only as far as there is some.

use super::Advise;
use crate::work::{Pages, Refusal, Task};

/// Memory of so many bytes, to which nothing was written yet where it is more than a few pages.
///
/// # Errors
/// [`Refusal::Memory`] where there is not as much, [`Refusal::Unsupported`] where there are no pages of that kind.
pub(super) fn take(task: &Task, advise: Option<Advise>) -> Result<Vec<u64>, Refusal> {
    // A kernel promises more than it has, and ends some program when that is used. Half of what it has to give leaves room.
    let free =
        available(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()).map_or(u64::MAX, |free| free / 2);
    task.check(free)?;
    let words = task.bytes as usize / size_of::<u64>();
    let none = Refusal::Memory { least: task.kind.least_memory(), most: 0 };
    // Tried first, since the allocation of zeros (which come with the kernel's pages, when they are touched) cannot fail softly.
    Vec::<u64>::new().try_reserve_exact(words).map_err(|_| none)?;
    let mut memory = vec![0; words];
    if task.pages == Pages::Huge && words > 0 && !advise.is_some_and(|advise| advise(&mut memory)) {
        return Err(Refusal::Unsupported);
    }
    Ok(memory)
}

/// `MemAvailable` of proc_meminfo(5), in bytes.
fn available(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Kind, MOST_MEMORY};

    #[test]
    fn what_is_available_is_read() {
        assert_eq!(available("MemTotal:  24684768 kB\nMemAvailable:       1024 kB\n"), Some(1 << 20));
        assert_eq!(available("MemAvailable: much\n"), None);
    }

    #[test]
    fn memory_is_taken_within_bounds() {
        let task = |bytes, pages| Task { kind: Kind::Chase, pages, bytes, seed: 0 };
        assert_eq!(take(&task(1 << 20, Pages::Usual), None).unwrap().len(), 1 << 17);
        assert!(matches!(take(&task(MOST_MEMORY + 1, Pages::Usual), None), Err(Refusal::Memory { .. })));
        assert_eq!(take(&task(1 << 20, Pages::Huge), None), Err(Refusal::Unsupported));
        assert_eq!(take(&task(1 << 20, Pages::Huge), Some(|_| false)), Err(Refusal::Unsupported));
        assert!(take(&task(1 << 20, Pages::Huge), Some(|_| true)).is_ok());
    }
}
