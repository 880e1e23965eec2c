//! The programs that run in the kernel.
//!
//! Each entry point is one call and one exhaustive match from its outcome to the hook's verdict. What is pure lives in
//! `pierhead-abi` and is tested there; here is only what needs maps, contexts and helpers.
//!
//! Only stable UAPI contexts are read (no CO-RE, no kfuncs), and only BTF maps are defined.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod l4;
mod maps;
mod object;
mod skb;
mod steer;

use aya_ebpf::bindings::sk_action;
use aya_ebpf::macros::{classifier, sk_lookup};
use aya_ebpf::programs::{SkLookupContext, TcContext};
use pierhead_abi::l4::Outcome;
use pierhead_abi::steer::Steered;

/// Network namespace: which socket answers.
#[sk_lookup]
pub fn pierhead_steer(ctx: SkLookupContext) -> u32 {
    match steer::count(steer::steer(&ctx)) {
        Steered::Foreign | Steered::Assigned | Steered::AssignedSecond | Steered::MissPassed | Steered::Exempt => {
            sk_action::SK_PASS
        }
        Steered::MissRefused => sk_action::SK_DROP,
    }
}

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` for a classic filter: whoever comes next sees the packet as we leave it.
const NEXT: i32 = -1;
const DROP: i32 = aya_ebpf::bindings::TC_ACT_SHOT as i32;
const REDIRECT: i32 = aya_ebpf::bindings::TC_ACT_REDIRECT as i32;

/// Ingress of an external interface: client to bind.
#[classifier]
pub fn pierhead_in(ctx: TcContext) -> i32 {
    verdict(l4::count(l4::ingress(&ctx)))
}

/// Egress of an external interface: endpoint to client.
#[classifier]
pub fn pierhead_out(ctx: TcContext) -> i32 {
    verdict(l4::count(l4::egress(&ctx)))
}

#[inline(always)]
fn verdict(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Foreign
        | Outcome::Forwarded
        | Outcome::Opened
        | Outcome::Returned
        | Outcome::IcmpIn
        | Outcome::IcmpOut
        | Outcome::Fragment
        | Outcome::NoEndpoint
        | Outcome::DeadBackend
        | Outcome::TableFull
        | Outcome::Gated
        | Outcome::LeaseOver
        | Outcome::LocalSocket
        | Outcome::Clash
        | Outcome::HopLimit
        | Outcome::Hairpin => NEXT,
        Outcome::Relayed => REDIRECT,
        Outcome::Broken => DROP,
    }
}
