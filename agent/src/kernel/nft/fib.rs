//! `fib saddr . iif oif`, an expression that `nftnl` lacks: the link through which the source of a packet is reachable,
//! if the packet was received on it; otherwise 0. All of its unsafe code is here. Numbers are from
//! linux/netfilter/nf_tables.h.
//!
//! For the source 0.0.0.0 the result is the receiving link if the packet is broadcast or link-local multicast, so that
//! DHCP works.

#![expect(unsafe_code, reason = "nftnl has no safe function for this expression of libnftnl")]

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

use nftnl::Rule;
use nftnl::expr::{Expression, Register};
use nftnl::nftnl_sys::{self as sys, nftnl_expr};

/// `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF`.
const SOURCE_AND_LINK: u32 = 0x01 | 0x08;

/// `NFT_FIB_RESULT_OIF`.
const LINK: u32 = 1;

pub(super) struct ReversePath;

impl Expression for ReversePath {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        // SAFETY: the name is a C string, which the call reads and does not keep.
        let allocated = unsafe { sys::nftnl_expr_alloc(c"fib".as_ptr()) };
        // All versions of libnftnl have this expression: it fails only without memory.
        let expression = NonNull::new(allocated).unwrap_or_else(|| handle_alloc_error(Layout::new::<usize>()));
        for (attribute, value) in [
            (sys::NFTNL_EXPR_FIB_FLAGS, SOURCE_AND_LINK),
            (sys::NFTNL_EXPR_FIB_RESULT, LINK),
            (sys::NFTNL_EXPR_FIB_DREG, Register::Reg1.to_raw()),
        ] {
            // SAFETY: the expression was just allocated, and these attributes of it are numbers of four bytes.
            unsafe { sys::nftnl_expr_set_u32(expression.as_ptr(), attribute as u16, value) };
        }
        expression
    }
}
