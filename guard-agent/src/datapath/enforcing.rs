//! On how many ports frames are dropped, as the pinned maps say: for whoever takes the program off.

use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use guard_ebpf::abi::{
    LAYOUT_VERSION, MAP_MODES, MAP_POLICIES, MAP_PORTS, MODE_ENFORCE, MODE_OF_BRIDGE, Mode,
    PORT_ACCESS, Policy, Port,
};

use super::KernelError;

/// Counts the ports on which frames are dropped; there are none where no program is.
///
/// # Errors
/// The maps are there and cannot be read.
pub fn enforcing(bpffs: &Path) -> Result<usize, KernelError> {
    let pins = bpffs.join(format!("v{LAYOUT_VERSION}"));
    let Some(ports) = open::<HashMap<MapData, u32, Port>>(&pins, MAP_PORTS)? else { return Ok(0) };
    let Some(modes) = open::<Array<MapData, Mode>>(&pins, MAP_MODES)? else { return Ok(0) };
    let Some(policies) = open::<Array<MapData, Policy>>(&pins, MAP_POLICIES)? else { return Ok(0) };
    let enforces = |port: &Port| {
        let policy = policies.get(&port.port_slot, 0).unwrap_or_default();
        let bridge = || modes.get(&port.bridge_slot, 0).unwrap_or_default().enforce != 0;
        let mode = policy.mode == MODE_ENFORCE || policy.mode == MODE_OF_BRIDGE && bridge();
        port.kind == PORT_ACCESS && policy.ifindex == port.ifindex && policy.drops != 0 && mode
    };
    Ok(ports.iter().filter_map(Result::ok).filter(|(_, port)| enforces(port)).count())
}

fn open<M: TryFrom<Map, Error = MapError>>(
    pins: &Path,
    name: &'static str,
) -> Result<Option<M>, KernelError> {
    let error = |source| KernelError::Map { name, source };
    let path = pins.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let map = Map::from_map_data(MapData::from_pin(path).map_err(error)?).map_err(error)?;
    M::try_from(map).map(Some).map_err(error)
}
