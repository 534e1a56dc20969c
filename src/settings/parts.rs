//! Stand-ins for what other stages compile, until their own types are merged; same names, same shapes.

pub mod infer {
    use secrecy::SecretString;
    use std::sync::Arc;
    use std::time::Duration;
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Api {
        OpenAi,
        Anthropic,
    }
    #[derive(Clone, Copy, Debug)]
    pub struct Price {
        pub input: f64,
        pub output: f64,
    }
    #[derive(Clone, Copy, Debug)]
    pub struct Timeouts {
        pub connect: Duration,
        pub first_token: Duration,
        pub idle: Duration,
        pub total: Duration,
    }
    impl Default for Timeouts {
        fn default() -> Self {
            let s = Duration::from_secs;
            Timeouts { connect: s(5), first_token: s(20), idle: s(10), total: s(120) }
        }
    }
    #[derive(Debug)]
    pub struct Model {
        pub name: Arc<str>,
        pub provider: Arc<str>,
        pub api: Api,
        pub url: String,
        pub model: String,
        pub key: Option<SecretString>,
        pub window_tokens: Option<u32>,
        pub price: Option<Price>,
        pub params: serde_json::Map<String, serde_json::Value>,
        pub headers: Vec<(String, SecretString)>,
        pub timeouts: Timeouts,
    }
    pub struct Prompt(String);
    impl Prompt {
        pub fn compile(_name: &str, source: &str) -> Result<Prompt, String> {
            Ok(Prompt(source.to_owned()))
        }
        pub fn source(&self) -> &str {
            &self.0
        }
    }
    pub mod provider {
        pub struct Provider {
            pub name: &'static str,
            pub api: super::Api,
            pub url: &'static str,
            pub url_variable: &'static str,
            pub key_variable: &'static str,
        }
        const ALL: [Provider; 2] = [
            Provider {
                name: "openai",
                api: super::Api::OpenAi,
                url: "https://api.openai.com/v1",
                url_variable: "OPENAI_BASE_URL",
                key_variable: "OPENAI_API_KEY",
            },
            Provider {
                name: "anthropic",
                api: super::Api::Anthropic,
                url: "https://api.anthropic.com/v1",
                url_variable: "ANTHROPIC_BASE_URL",
                key_variable: "ANTHROPIC_API_KEY",
            },
        ];
        const MODELS: [(&str, u32); 2] =
            [("openai/gpt-5-mini", 400_000), ("anthropic/claude-haiku-4-5", 200_000)];
        pub fn find(name: &str) -> Option<&'static Provider> {
            static P: [Provider; 2] = ALL;
            P.iter().find(|p| p.name == name)
        }
        pub fn names() -> impl Iterator<Item = &'static str> {
            ["openai", "anthropic"].into_iter()
        }
        pub fn known_models() -> impl Iterator<Item = &'static str> {
            MODELS.into_iter().map(|m| m.0)
        }
        pub fn window_tokens(name: &str) -> Option<u32> {
            MODELS.iter().find(|m| m.0 == name).map(|m| m.1)
        }
        pub fn price(_name: &str) -> Option<super::Price> {
            None
        }
    }
}
