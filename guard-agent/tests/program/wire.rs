//! The program on a port of a real bridge, and frames that come in there: the third runner of the
//! cases. The network namespace is the thread's own, and goes with it.

use std::{
    fs,
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType, tc::qdisc_add_clsact};
use guard_ebpf::abi::{Mode, PROGRAM};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, send,
        socket,
    },
};

use crate::{
    common::{BRIDGE, Case, ELSEWHERE, Outcome},
    kernel::{Program, coarse_ns, stay_on_one_cpu},
};

/// The port that has the program on it, and the far end of its veth pair.
const PORT: &str = "port";
const FAR: &str = "far";

/// Far more than a frame needs from one end of a veth pair to the other.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A bridge with two ports, on one of which the program is.
struct Wire {
    program: Program,
    ifindex: u32,
    far: OwnedFd,
}

impl Wire {
    fn new() -> Option<Self> {
        let mut program = Program::load()?;
        // Frames are received on the CPU that sends them, in an interrupt that nothing on it
        // interrupts: once one of them is counted, the program has done all that it does.
        stay_on_one_cpu();

        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // The kernel's own frames are not part of a case.
        for scope in ["all", "default"] {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
        }
        ip(&format!(
            "link add rt0 index {BRIDGE} type bridge\n\
             link add {PORT} type veth peer name {FAR}\n\
             link add other index {ELSEWHERE} type veth peer name far-other\n\
             link set {PORT} master rt0\n\
             link set other master rt0\n\
             link set rt0 up\n\
             link set {PORT} up\n\
             link set {FAR} up\n\
             link set other up\n\
             link set far-other up"
        ));
        // A kernel with TCX does not need it.
        let _ = qdisc_add_clsact(PORT);
        let classifier: &mut SchedClassifier =
            program.ebpf.program_mut(PROGRAM).unwrap().try_into().unwrap();
        classifier.attach(PORT, TcAttachType::Ingress).unwrap();
        Some(Self { program, ifindex: if_nametoindex(PORT).unwrap(), far: packet_socket(FAR) })
    }

    /// What comes of the case's frame, sent to the port.
    fn outcome(&mut self, case: &Case, enforce: bool) -> Outcome {
        let now_ns = coarse_ns();
        self.program.prepare(case, now_ns);
        self.program.set_policy(case.policy(), Mode { enforce: enforce.into(), braked: 0 });
        let frames = self.program.frames();
        let bytes = case.frame.on_the_wire();
        let what = &case.name;
        let sent = send(self.far.as_raw_fd(), &bytes, MsgFlags::empty());
        assert_eq!(sent, Ok(bytes.len()), "{what}: {bytes:02x?}");
        let deadline = Instant::now() + TIMEOUT;
        while self.program.frames() == frames {
            assert!(Instant::now() < deadline, "{what} does not arrive: {bytes:02x?}");
            thread::yield_now();
        }
        self.program.what_came(case, now_ns)
    }
}

fn ip(commands: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "{commands}");
}

fn packet_socket(interface: &str) -> OwnedFd {
    let address = getifaddrs()
        .unwrap()
        .filter(|found| found.interface_name == interface)
        .filter_map(|found| found.address)
        .find(|address| address.family() == Some(AddressFamily::Packet))
        .unwrap();
    let fd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .unwrap();
    bind(fd.as_raw_fd(), &address).unwrap();
    fd
}

#[test]
fn real_frames_agree_with_the_cases() {
    let Some(mut wire) = Wire::new() else { return };
    let mut ran = 0;
    for (file, mut case) in Case::all() {
        if let Some(reason) = &case.skip_wire {
            eprintln!("passed over: {file}: {} {}: {reason}", case.row, case.name);
            continue;
        }
        case.here = wire.ifindex;
        let what = format!("{file}: {} {}", case.row, case.name);
        assert_eq!(wire.outcome(&case, false).cut_to(&case.expect), case.expect, "{what}");
        let (enforced, expected) = wire.outcome(&case, true).enforced(&case.expect);
        assert_eq!(enforced, expected, "{what}: enforced");
        ran += 1;
    }
    assert!(ran > 0);
}
