//! Memory.

values! {
    /// `mode` of mbind(2) and set_mempolicy(2), without flags
    MPOL(I32) {
        MPOL_DEFAULT = 0, MPOL_PREFERRED = 1, MPOL_BIND = 2, MPOL_INTERLEAVE = 3, MPOL_LOCAL = 4,
        MPOL_PREFERRED_MANY = 5, MPOL_WEIGHTED_INTERLEAVE = 6,
    }
}

flags! {
    /// mlockall(2)
    MCL(U32) {; MCL_CURRENT = 1, MCL_FUTURE = 2, MCL_ONFAULT = 4 }
    /// mlock2(2)
    MLOCK(U32) {; MLOCK_ONFAULT = 1 }
    /// mbind(2), move_pages(2)
    MPOL_MF(U32) {; MPOL_MF_STRICT = 1, MPOL_MF_MOVE = 2, MPOL_MF_MOVE_ALL = 4 }
    /// get_mempolicy(2)
    MPOL_F(U64) {; MPOL_F_NODE = 1, MPOL_F_ADDR = 2, MPOL_F_MEMS_ALLOWED = 4 }
    /// userfaultfd(2)
    USERFAULTFD(U32) {; O_CLOEXEC = 0o2000000, O_NONBLOCK = 0o4000, UFFD_USER_MODE_ONLY = 1 }
    /// memfd_secret(2)
    MEMFD_SECRET(U32) {; O_CLOEXEC = 0o2000000 }
    /// pkey_alloc(2)
    PKEY(U64) {; PKEY_DISABLE_ACCESS = 1, PKEY_DISABLE_WRITE = 2 }
    /// map_shadow_stack(2)
    SHADOW_STACK(U32) {; SHADOW_STACK_SET_TOKEN = 1 }
}
