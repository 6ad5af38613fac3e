//! Numbers of system calls, by architecture: `asm/unistd_64.h` and `asm-generic/unistd.h` of Linux.

#[cfg(target_arch = "x86_64")]
pub mod x86_64 {
    pub const IOCTL: i64 = 16;
    pub const SOCKET: i64 = 41;
    pub const SOCKETPAIR: i64 = 53;
    pub const CLONE: i64 = 56;
    pub const SETRLIMIT: i64 = 160;
    pub const PRLIMIT64: i64 = 302;
    pub const CLONE3: i64 = 435;
    pub const OPENAT2: i64 = 437;
    /// Calls that set a file's mode: number, which argument, and which one holds `O_CREAT` where it is needed.
    pub const MODES: [(i64, u8, Option<u8>); 9] = [
        (2, 2, Some(1)),   // open
        (85, 1, None),     // creat
        (90, 1, None),     // chmod
        (91, 1, None),     // fchmod
        (133, 1, None),    // mknod
        (257, 3, Some(2)), // openat
        (259, 2, None),    // mknodat
        (268, 2, None),    // fchmodat
        (452, 2, None),    // fchmodat2
    ];

    /// Forbidden whatever their arguments.
    pub const ALWAYS: [i64; 52] = [
        134, // uselib
        139, // sysfs
        153, // vhangup
        155, // pivot_root
        156, // _sysctl
        161, // chroot
        163, // acct
        165, // mount
        166, // umount2
        167, // swapon
        168, // swapoff
        169, // reboot
        172, // iopl
        173, // ioperm
        174, // create_module
        175, // init_module
        176, // delete_module
        177, // get_kernel_syms
        178, // query_module
        179, // quotactl
        180, // nfsservctl
        103, // syslog
        212, // lookup_dcookie
        246, // kexec_load
        248, // add_key
        249, // request_key
        250, // keyctl
        272, // unshare
        298, // perf_event_open
        300, // fanotify_init
        303, // name_to_handle_at
        304, // open_by_handle_at
        308, // setns
        312, // kcmp
        313, // finit_module
        320, // kexec_file_load
        321, // bpf
        323, // userfaultfd
        425, // io_uring_setup
        426, // io_uring_enter
        427, // io_uring_register
        428, // open_tree
        429, // move_mount
        430, // fsopen
        431, // fsconfig
        432, // fsmount
        433, // fspick
        442, // mount_setattr
        443, // quotactl_fd
        457, // statmount
        458, // listmount
        467, // open_tree_attr
    ];
}

#[cfg(target_arch = "aarch64")]
pub mod aarch64 {
    pub const IOCTL: i64 = 29;
    pub const SETRLIMIT: i64 = 164;
    pub const SOCKET: i64 = 198;
    pub const SOCKETPAIR: i64 = 199;
    pub const CLONE: i64 = 220;
    pub const PRLIMIT64: i64 = 261;
    pub const CLONE3: i64 = 435;
    pub const OPENAT2: i64 = 437;
    /// Calls that set a file's mode: number, which argument, and which one holds `O_CREAT` where it is needed.
    pub const MODES: [(i64, u8, Option<u8>); 5] = [
        (33, 2, None),    // mknodat
        (52, 1, None),    // fchmod
        (53, 2, None),    // fchmodat
        (56, 3, Some(2)), // openat
        (452, 2, None),   // fchmodat2
    ];

    /// Forbidden whatever their arguments.
    pub const ALWAYS: [i64; 44] = [
        18,  // lookup_dcookie
        39,  // umount2
        40,  // mount
        41,  // pivot_root
        42,  // nfsservctl
        51,  // chroot
        58,  // vhangup
        60,  // quotactl
        89,  // acct
        97,  // unshare
        104, // kexec_load
        105, // init_module
        106, // delete_module
        116, // syslog
        142, // reboot
        217, // add_key
        218, // request_key
        219, // keyctl
        224, // swapon
        225, // swapoff
        241, // perf_event_open
        262, // fanotify_init
        264, // name_to_handle_at
        265, // open_by_handle_at
        268, // setns
        272, // kcmp
        273, // finit_module
        280, // bpf
        282, // userfaultfd
        294, // kexec_file_load
        425, // io_uring_setup
        426, // io_uring_enter
        427, // io_uring_register
        428, // open_tree
        429, // move_mount
        430, // fsopen
        431, // fsconfig
        432, // fsmount
        433, // fspick
        442, // mount_setattr
        443, // quotactl_fd
        457, // statmount
        458, // listmount
        467, // open_tree_attr
    ];
}
