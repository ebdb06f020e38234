//! How the heap keeps memory.

/// Blocks of so many octets are mapped by themselves.
#[cfg(target_env = "gnu")]
const MAPPED_OCTETS: libc::c_int = 256 << 10;

/// Has memory that one request took go back to the kernel with it. glibc learns from each large block that is freed to take
/// the next ones, up to 32 MiB, out of the heap, and leaves as much there when they are gone: after a list of a hundred
/// thousand flows was read, that is the text, several times.
///
/// To be called before other threads exist: they would allocate while this changes how.
pub(super) fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer. What makes it unsafe to call with other threads (mallopt(3), "init") is excluded by the
    // caller, which is alone.
    let _is_known = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_OCTETS) };
}
