//! The configuration that a network had with `host-local`.

use anyhow::Result;
use guard_tests::{Attachment, GATEWAY, Lab, Plugin};
use serde_json::json;

#[test]
fn a_configuration_for_host_local_works_with_another_type() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let resolv_conf = lab.dir().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.8.64.1\nsearch a.test b.test\noptions ndots:2\n")?;
    let mut conf = json!({
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "bridge",
        "bridge": "rt0",
        "ipam": {
            "type": "host-local",
            "dataDir": lab.dir().join("host-local"),
            "ranges": [[{ "subnet": lab.prefix().trunc().to_string(), "gateway": GATEWAY }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.9.0.0/16", "gw": "10.8.64.3" }],
            "resolvConf": resolv_conf,
        },
    });
    let netns = lab.container("c")?.path();
    let theirs = Plugin::debian("host-local", None, conf.clone())?;
    let theirs = theirs.done("ADD", Attachment::new("c", &netns))?;

    conf["ipam"]["type"] = "guard-ipam".into();
    conf["ipam"]["socket"] = json!(agent.socket());
    let ours = Plugin::guard_ipam(None, conf)?.done("ADD", Attachment::new("c", &netns))?;
    assert_eq!(ours, theirs);
    Ok(())
}
