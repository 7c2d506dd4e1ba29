use super::compiler::{AND, AUDIT_ARCH_X86_64, JA, JEQ, JGE, JGT, LD_W_ABS, RET, X32};
use super::*;
use proptest::prelude::*;

/// Runs a program as the kernel would.
fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let one = program[at];
        at += 1;
        let taken = |holds: bool| usize::from(if holds { one.jump_true } else { one.jump_false });
        match one.code {
            LD_W_ABS => {
                let offset = one.operand as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            AND => accumulator &= one.operand,
            JA => at += one.operand as usize,
            JEQ => at += taken(accumulator == one.operand),
            JGT => at += taken(accumulator > one.operand),
            JGE => at += taken(accumulator >= one.operand),
            RET => return one.operand,
            other => panic!("code {other:#x}"),
        }
    }
}

fn docker(number: i64, first: u64) -> u32 {
    run(Filter::standard().program(), AUDIT_ARCH_X86_64, number as u32, [first, 0, 0, 0, 0, 0])
}

#[test]
fn the_standard_policy_is_dockers() {
    let (allow, refuse, absent) =
        (Action::Allow.value(), Action::Fail(Errno::PERM).value(), Action::Fail(Errno::NOSYS).value());
    for allowed in [libc::SYS_read, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_openat2, libc::SYS_statx] {
        assert_eq!(docker(allowed, 0), allow, "{allowed}");
    }
    for refused in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_bpf, libc::SYS_io_uring_setup, libc::SYS_keyctl] {
        assert_eq!(docker(refused, 0), refuse, "{refused}");
    }
    assert_eq!(docker(libc::SYS_clone, libc::SIGCHLD as u64), allow);
    assert_eq!(docker(libc::SYS_clone, libc::CLONE_NEWUSER as u64), refuse);
    assert_eq!(docker(libc::SYS_clone3, 0), absent);
    assert_eq!(docker(libc::SYS_socket, libc::AF_INET as u64), allow);
    assert_eq!(docker(libc::SYS_socket, libc::AF_ALG as u64), refuse);
    assert_eq!(docker(libc::SYS_socket, libc::AF_VSOCK as u64), refuse);
    assert_eq!(docker(libc::SYS_personality, 0), allow);
    assert_eq!(docker(libc::SYS_personality, 1), refuse);
    assert_eq!(docker(i64::from(syscalls::LAST) + 1, 0), absent);
    assert_eq!(docker(i64::from(X32), 0), absent);
    let i386 = 0x4000_0003;
    assert_eq!(run(Filter::standard().program(), i386, 1, [0; 6]), absent);
}

#[test]
fn every_refused_name_exists() {
    for name in REFUSED.split_ascii_whitespace() {
        assert!(syscalls::all().any(|(known, _)| known == name), "{name}");
    }
}

fn holds(condition: &Condition, arguments: [u64; 6]) -> bool {
    let argument = arguments[usize::from(condition.argument)];
    match condition.comparison {
        Comparison::Equal => argument == condition.value,
        Comparison::NotEqual => argument != condition.value,
        Comparison::Less => argument < condition.value,
        Comparison::LessOrEqual => argument <= condition.value,
        Comparison::GreaterOrEqual => argument >= condition.value,
        Comparison::Greater => argument > condition.value,
        Comparison::MaskedEqual(mask) => argument & mask == condition.value,
    }
}

/// Numbers of which many share a high or a low word.
fn value() -> impl Strategy<Value = u64> {
    (0_u64..3, 0_u64..3).prop_map(|(high, low)| high << 32 | low)
}

fn condition() -> impl Strategy<Value = Condition> {
    use Comparison::*;
    let comparison = prop_oneof![
        Just(Equal),
        Just(NotEqual),
        Just(Less),
        Just(LessOrEqual),
        Just(GreaterOrEqual),
        Just(Greater),
        value().prop_map(MaskedEqual),
    ];
    (0_u8..6, comparison, value()).prop_map(|(argument, comparison, value)| Condition { argument, comparison, value })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        Just(Action::Allow),
        Just(Action::Kill),
        (1_i32..100).prop_map(|n| Action::Fail(Errno::from_raw_os_error(n)))
    ];
    (proptest::collection::vec(condition(), 0..4), action).prop_map(|(conditions, action)| Rule { conditions, action })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_compiled_policy_decides_as_its_rules_do(
        rules in proptest::collection::btree_map(0_u32..=syscalls::LAST, proptest::collection::vec(rule(), 1..4), 0..100),
        numbers in proptest::collection::vec(0_u32..=syscalls::LAST + 2, 50),
        arguments in proptest::array::uniform6(value()),
    ) {
        let mut policy = Policy::new(Action::Fail(Errno::PERM));
        policy.rules = rules;
        let Ok(program) = policy.compile() else { return Ok(()) };
        for number in numbers {
            let expected = if number > syscalls::LAST {
                policy.unknown
            } else {
                let rules = policy.rules.get(&number).map(Vec::as_slice).unwrap_or_default();
                let rule = rules.iter().find(|rule| rule.conditions.iter().all(|one| holds(one, arguments)));
                rule.map_or(policy.default, |rule| rule.action)
            };
            prop_assert_eq!(run(program.program(), AUDIT_ARCH_X86_64, number, arguments), expected.value());
        }
    }
}
