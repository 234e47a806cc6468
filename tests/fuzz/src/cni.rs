//! Feeds libFuzzer's documents to the CNI plugin's configuration: nothing panics, and the version of an
//! answer is always one that is spoken.

#![no_main]

// The plugin is a program, so its module is taken as it stands, with as much around it as it wants.
#[path = "../../../guard-agent/guard-ipam/src/conf.rs"]
mod conf;

mod error {
    #[derive(Debug)]
    pub enum Error {
        Version { asked: String },
        Decode(serde_json::Error),
        Conf(String),
    }

    impl From<serde_json::Error> for Error {
        fn from(error: serde_json::Error) -> Self {
            Self::Decode(error)
        }
    }
}

use libfuzzer_sys::fuzz_target;

const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

fuzz_target!(|text: &str| {
    let _ = conf::version_of(text);
    let mut version = VERSIONS[2].to_owned();
    match conf::NetConf::parse(text, &mut version) {
        Ok(conf) => {
            assert_eq!(version, conf.cni_version);
            match conf.role() {
                Ok(conf::Role::Ipam(ipam)) => {
                    let _ = (ipam.pools(), ipam.ranges(), &ipam.routes, &ipam.resolv_conf);
                }
                Ok(conf::Role::Chained(previous)) => {
                    assert!(previous.is_null() || conf.prev_result.is_some())
                }
                Err(_) => {}
            }
            let _ = (conf.socket(), conf.attachments().is_ok(), &conf.bridge);
            let _ = (&conf.args.cni.ips, &conf.runtime_config.ips);
            assert!(conf.key("eth0").ends_with("/eth0"));
        }
        Err(error::Error::Version { asked }) => assert!(!VERSIONS.contains(&&*asked)),
        Err(error::Error::Decode(error)) => assert!(!error.to_string().is_empty()),
        Err(error::Error::Conf(why)) => assert!(!why.is_empty()),
    }
    assert!(VERSIONS.contains(&&*version));
});
