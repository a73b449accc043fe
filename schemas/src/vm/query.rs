//! Queries for VMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VmView;
use crate::id::VmId;
use crate::permission::Permission;
use crate::request::{ByName, PageRequest, Request, RequestKind, RequestType};

/// The requests that read VMs.
pub const QUERIES: &[Request] = &[Request::of::<GetVm>(), Request::of::<FindVm>(), Request::of::<ListVms>()];

/// Selects a VM by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmById {
    pub id: VmId,
}

/// `vm.get`
#[derive(Clone, Copy, Debug)]
pub struct GetVm;

impl RequestType for GetVm {
    const NAME: &'static str = "vm.get";
    const PERMISSION: Permission = Permission::VmRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a VM by its id";
    const DESCRIPTION: &'static str = "Returns deleted VMs, too, until their node has removed the NIC's tap.";
    type Body = VmById;
    type Answer = VmView;
}

/// `vm.find`
#[derive(Clone, Copy, Debug)]
pub struct FindVm;

impl RequestType for FindVm {
    const NAME: &'static str = "vm.find";
    const PERMISSION: Permission = Permission::VmRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a VM by its name";
    const DESCRIPTION: &'static str = "Names are compared without regard to case and Unicode normalisation. Returns \
        deleted VMs, too, until their node has removed the NIC's tap, unless another has the name.";
    type Body = ByName;
    type Answer = VmView;
}

/// `vm.list`
#[derive(Clone, Copy, Debug)]
pub struct ListVms;

impl RequestType for ListVms {
    const NAME: &'static str = "vm.list";
    const PERMISSION: Permission = Permission::VmRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "List VMs";
    const DESCRIPTION: &'static str = "One page, in the order of creation; `meta.next_cursor` selects the next. \
        Includes deleted VMs until their node has removed the NIC's tap.";
    type Body = PageRequest;
    type Answer = Vec<VmView>;
}
