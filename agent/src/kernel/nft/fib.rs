//! `fib saddr . iif oif`, an expression that the crate lacks: by which link the source of a packet would be reached, if that is
//! the one that it came by; 0 otherwise. Owns what is unsafe about it. The numbers are from linux/netfilter/nf_tables.h.
//!
//! For a source of 0.0.0.0 the kernel gives the link that the packet came by if it goes to all or to a multicast group of the link, so
//! that DHCP works.

#![expect(unsafe_code, reason = "libnftnl is written in C, and the crate has no safe way to its other expressions")]

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
        // SAFETY: the name is a C string, which is read and not kept.
        let made = unsafe { sys::nftnl_expr_alloc(c"fib".as_ptr()) };
        // The name is known to every libnftnl: nothing is given only when there is no memory.
        let expression = NonNull::new(made).unwrap_or_else(|| handle_alloc_error(Layout::new::<usize>()));
        for (attribute, value) in [
            (sys::NFTNL_EXPR_FIB_FLAGS, SOURCE_AND_LINK),
            (sys::NFTNL_EXPR_FIB_RESULT, LINK),
            (sys::NFTNL_EXPR_FIB_DREG, Register::Reg1.to_raw()),
        ] {
            // SAFETY: the expression was made just now, and these attributes of it are numbers of four bytes.
            unsafe { sys::nftnl_expr_set_u32(expression.as_ptr(), attribute as u16, value) };
        }
        expression
    }
}
