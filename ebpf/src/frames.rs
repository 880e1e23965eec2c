//! Frames for the layer 4 rig, made in the kernel: the program is run on live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`), writes
//! the next packet into each, and passes it up the stack as if it had come from the wire. Not part of what is shipped.
#![no_std]
#![no_main]

mod object;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use core::ptr;
use pierhead_abi::checksum;

/// An Ethernet frame of IPv4 and UDP, as short as there are, in words.
const WORDS: usize = 15;

/// The frame, without what differs from flow to flow: identification, source, ports and the first two bytes of what it carries
/// are zero. Both checksums are right as if those were nothing.
#[btf_map]
pub static TEMPLATE: Array<[u32; WORDS], 1> = Array::new();

/// Which packets. Numbers are in this machine's order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Shape {
    /// Number of the next one's flow.
    pub flow: u32,
    pub flows: u32,
    /// A flow goes to the bind whose number is its own modulo this.
    pub binds: u32,
    pub first_port: u32,
    /// So many binds have a port in common.
    pub binds_of_a_port: u32,
    /// Source of the first flows, …
    pub client: u32,
    /// … and the first of the others, each of so many flows.
    pub others: u32,
    pub flows_of_a_source: u32,
}

#[btf_map]
pub static SHAPE: Array<Shape, 1> = Array::new();

/// The lowest source port.
const SOURCE_PORT: u32 = 16_384;

#[xdp]
pub fn pierhead_frames(ctx: XdpContext) -> u32 {
    match next(&ctx) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// The bytes that 16 bits are in a packet.
#[inline(always)]
fn wire(number: u32) -> u16 {
    (number as u16).to_be()
}

/// The word that makes nothing of `sum` in a checksum (RFC 1071: the complement, in any byte order).
#[inline(always)]
fn balance(sum: u32) -> u16 {
    !checksum::fold(sum)
}

#[inline(always)]
fn next(ctx: &XdpContext) -> Option<()> {
    let shape = SHAPE.get_ptr_mut(0)?;
    let template = TEMPLATE.get_ptr(0)?;
    let frame = ctx.data() as *mut u32;
    if ctx.data() + WORDS * 4 > ctx.data_end() {
        return None;
    }
    // SAFETY: map values, which one thread uses at a time; the frame has the bytes that are written, which was just looked at.
    unsafe {
        let shape_now = ptr::read(shape);
        let flow = shape_now.flow;
        (*shape).flow = if flow + 1 < shape_now.flows { flow + 1 } else { 0 };
        let template = template.cast::<u32>();
        for word in 0..WORDS {
            ptr::write(frame.add(word), ptr::read(template.add(word)));
        }
        let group = flow.checked_div(shape_now.flows_of_a_source)?;
        let source = if group == 0 {
            shape_now.client
        } else {
            shape_now.others + group
        };
        let source_port = SOURCE_PORT + flow.checked_rem(shape_now.flows_of_a_source)?;
        let bind = flow.checked_rem(shape_now.binds)?;
        let target_port = shape_now.first_port + bind.checked_div(shape_now.binds_of_a_port)?;
        let address = (source >> 16) + (source & 0xffff);
        // Halfwords, as they lie in the frame.
        let at = |byte: usize| frame.cast::<u16>().add(byte / 2);
        ptr::write(at(18), wire(balance(address) as u32));
        ptr::write(at(26), wire(source >> 16));
        ptr::write(at(28), wire(source));
        ptr::write(at(34), wire(source_port));
        ptr::write(at(36), wire(target_port));
        ptr::write(at(42), wire(balance(address + source_port + target_port) as u32));
    }
    Some(())
}
