//! Where a static binary looks host names up.
//!
//! Two sources are built into glibc since 2.34: `files`, which is /etc/hosts, and `dns`. Any other
//! that /etc/nsswitch.conf names, such as `mdns4_minimal` on desktops and `myhostname` on Fedora, is
//! a shared library, and loading it brings the machine's own glibc into the process. Where that has
//! another version than the one linked here, the process dies of SIGFPE: seen with 2.36 in the
//! binary and Debian 13 (2.41) around it. So a static binary asks the two that it has.
#![allow(unsafe_code)]

/// Makes this process look host names up in /etc/hosts and by DNS alone, if it is a static binary
/// with glibc. Any other loads the libraries that it was linked against, and nothing is changed.
/// Must be called before the first look-up.
pub fn use_built_in_sources() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{c_char, c_int};

        unsafe extern "C" {
            /// Takes precedence over a line of /etc/nsswitch.conf (glibc's nss/nss_database.c).
            fn __nss_configure_lookup(database: *const c_char, sources: *const c_char) -> c_int;
        }
        // SAFETY: both are C strings that live for ever; glibc takes its own lock. It fails only
        // without memory, and then the file's line stays in force.
        unsafe {
            __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        }
    }
}
