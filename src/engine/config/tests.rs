use super::{ConfigError, RunArgs, Settings};
use crate::keys::{EngineKey, RootHash, SecretText};
use crate::telemetry::logs::Format;
use std::collections::HashMap;
use std::path::PathBuf;

fn key() -> EngineKey {
    EngineKey::generate(RootHash::from_bytes([9; 32]).unwrap(), "databases").unwrap()
}

fn load(args: RunArgs, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings::load(args, |name| env.get(name).cloned())
}

/// A file that goes when dropped.
struct Temp(PathBuf);

impl Temp {
    fn with(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dsv-engine-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn three_variables_are_enough() {
    let key = key();
    let text = key.text();
    let env = [
        ("ENGINE_NAME", "dc-1"),
        ("DSV_ENDPOINT", "acme.ws.example.com"),
        ("DSV_PRIVATE_KEY", text.reveal()),
    ];
    let settings = load(RunArgs::default(), &env).unwrap();
    assert_eq!(settings.engine_name, "dc-1");
    assert_eq!(settings.endpoints[0].to_string(), "acme.ws.example.com:443");
    assert_eq!(settings.key.public(), key.public());
    assert!(!settings.require_trusted_tls);
    assert!(!format!("{settings:?}").contains(&text.reveal()[6..40]));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let (flag, file) = (key(), key());
    let config = Temp::with(&format!(
        "endpoint: from-file\nengineName: from-file\nprivateKey: {}\nrequireTrustedTls: true\nlogFormat: json\n\
         healthAddr: 127.0.0.1:1\n",
        file.text().reveal()
    ));
    let args = RunArgs {
        engine_name: Some("from-flag".to_owned()),
        private_key: Some(flag.text()),
        config: Some(config.0.clone()),
        ..RunArgs::default()
    };
    let env = [
        ("ENGINE_NAME", "from-env"),
        ("DSV_ENDPOINT", "from-env, second:8443"),
        ("DSV_LOG_FORMAT", "text"),
    ];
    let settings = load(args, &env).unwrap();
    assert_eq!(settings.engine_name, "from-flag");
    assert_eq!(settings.key.public(), flag.public());
    let endpoints: Vec<String> = settings.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["from-env:443", "second:8443"]);
    assert_eq!(settings.log_format, Format::Text);
    assert!(settings.require_trusted_tls);
    assert_eq!(settings.health_addr, Some("127.0.0.1:1".parse().unwrap()));
    let settings = load(
        RunArgs {
            config: Some(config.0.clone()),
            ..RunArgs::default()
        },
        &[],
    )
    .unwrap();
    assert_eq!(settings.engine_name, "from-file");
    assert_eq!(settings.key.public(), file.public());
    assert_eq!(settings.log_format, Format::Json);
}

#[test]
fn the_key_may_lie_in_a_file_so_that_no_command_line_shows_it() {
    let key = key();
    let file = Temp::with(&format!("{}\n", key.text().reveal()));
    let base = RunArgs {
        endpoint: Some("a".to_owned()),
        engine_name: Some("b".to_owned()),
        private_key_file: Some(file.0.clone()),
        ..RunArgs::default()
    };
    assert_eq!(load(base.clone(), &[]).unwrap().key.public(), key.public());
    let by_env = RunArgs {
        private_key_file: None,
        ..base
    };
    let path = file.0.to_string_lossy().into_owned();
    assert_eq!(
        load(by_env, &[("DSV_PRIVATE_KEY_FILE", &path)]).unwrap().key.public(),
        key.public()
    );
}

#[test]
fn everything_that_is_missing_is_named_in_one_sentence_with_flag_and_variable() {
    let text = load(RunArgs::default(), &[("DSV_ENDPOINT", " ")])
        .unwrap_err()
        .to_string();
    for word in [
        "--endpoint",
        "DSV_ENDPOINT",
        "--engine-name",
        "ENGINE_NAME",
        "--private-key",
        "DSV_PRIVATE_KEY",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let text = load(
        RunArgs {
            endpoint: Some("a".to_owned()),
            ..RunArgs::default()
        },
        &[("DSV_ENGINE", "e")],
    );
    let text = text.unwrap_err().to_string();
    assert!(
        !text.contains("endpoint") && !text.contains("ENGINE_NAME") && text.contains("DSV_PRIVATE_KEY"),
        "{text}"
    );
}

#[test]
fn wrong_values_are_named_and_a_wrong_key_is_not_shown() {
    let args = |key: &str| RunArgs {
        endpoint: Some("a".to_owned()),
        engine_name: Some("b".to_owned()),
        private_key: Some(SecretText::new(key)),
        ..RunArgs::default()
    };
    let good = key().text();
    let error = load(args("hunter2"), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Key(_)));
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    assert!(matches!(
        load(args(good.reveal()), &[("DSV_HEALTH_ADDR", "8081")]),
        Err(ConfigError::Value { .. })
    ));
    assert!(matches!(
        load(args(good.reveal()), &[("DSV_LOG_FORMAT", "xml")]),
        Err(ConfigError::Value { .. })
    ));
    let wrong = RunArgs {
        endpoint: Some("ws://a".to_owned()),
        ..args(good.reveal())
    };
    assert!(matches!(load(wrong, &[]), Err(ConfigError::Endpoint(_))));
    let wrong = RunArgs {
        engine_name: Some("Not A Name".to_owned()),
        ..args(good.reveal())
    };
    assert!(matches!(load(wrong, &[]), Err(ConfigError::Value { .. })));
}

#[test]
fn a_mistyped_setting_in_the_file_is_an_error_that_shows_no_value() {
    let file = Temp::with("endpoint: a\nprivatKey: dsvk1.secret\n");
    let error = load(
        RunArgs {
            config: Some(file.0.clone()),
            ..RunArgs::default()
        },
        &[],
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("line 2"), "{text}");
    assert!(!text.contains("dsvk1.secret"), "{text}");
}

#[test]
fn the_time_between_sweeps_has_bounds() {
    let key = key();
    let text = key.text();
    let with = |seconds: &str| {
        let env = [
            ("ENGINE_NAME", "dc-1"),
            ("DSV_ENDPOINT", "acme.ws.example.com"),
            ("DSV_PRIVATE_KEY", text.reveal()),
            ("DSV_SWEEP_EVERY", seconds),
        ];
        load(RunArgs::default(), &env).map(|settings| settings.sweep_every.as_secs())
    };
    assert_eq!(with("").unwrap(), 30);
    assert_eq!(with("2").unwrap(), 2);
    for wrong in ["0", "3601", "-1", "often"] {
        let said = with(wrong).unwrap_err().to_string();
        assert!(said.contains("DSV_SWEEP_EVERY") && said.contains(wrong), "{said}");
    }
}
