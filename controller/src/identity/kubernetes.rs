//! The CA in a Secret and a ConfigMap; tokens reviewed by the API server.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenReview, TokenReviewSpec},
        core::v1::{ConfigMap, Secret},
    },
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use pierhead_protocol::identity::AUDIENCE;

use super::{Created, ReviewError, Reviewed, Reviewer, StoredAuthority, Vault, VaultError};

/// Of the Secret with the CA and of the ConfigMap with its certificate.
const NAME: &str = "pierhead-ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// Whoever annotates the Secret with it, whatever the value, wants a new CA to follow the present one.
const ROTATE: &str = "pierhead.dev/rotate";

/// A node waits for the answer: rather tell it to try again.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// The CA in the controller's namespace.
pub struct ApiVault {
    secrets: Api<Secret>,
    /// As it was last read.
    last: Option<Secret>,
    config_maps: Api<ConfigMap>,
}

impl ApiVault {
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            last: None,
            config_maps: Api::namespaced(client.clone(), namespace),
        }
    }
}

impl Vault for ApiVault {
    async fn read(&mut self) -> Result<Option<StoredAuthority>, VaultError> {
        let Some(secret) = self.secrets.get_opt(NAME).await.map_err(failed)? else {
            return Ok(None);
        };
        let asked = secret.metadata.annotations.as_ref();
        let asked = asked.is_some_and(|all| all.contains_key(ROTATE));
        let mut data = secret.data.clone().unwrap_or_default();
        self.last = Some(secret);
        let mut text = |key: &str| {
            let ByteString(bytes) = data.remove(key).unwrap_or_default();
            let text = String::from_utf8(bytes).unwrap_or_default();
            if text.is_empty() {
                let what = format!("the Secret {NAME} has no {key}; delete it to have a new CA made");
                return Err(VaultError(what));
            }
            Ok(text)
        };
        Ok(Some(StoredAuthority {
            certificate_pem: text(CERTIFICATE)?,
            key_pem: text(KEY)?,
            asked,
        }))
    }

    async fn replace(&mut self, authority: &StoredAuthority) -> Result<(), VaultError> {
        let Some(mut secret) = self.last.take() else {
            return Err(VaultError(format!("the Secret {NAME} was never read")));
        };
        // With its resourceVersion: a change in between is a conflict, and the next step looks again.
        secret.data = Some(data(authority));
        if let Some(annotations) = &mut secret.metadata.annotations {
            annotations.remove(ROTATE);
        }
        let replaced = self.secrets.replace(NAME, &PostParams::default(), &secret).await;
        replaced.map(drop).map_err(failed)
    }

    async fn create(&mut self, authority: &StoredAuthority) -> Result<Created, VaultError> {
        let secret = Secret {
            metadata: metadata(),
            type_: Some("Opaque".to_owned()),
            data: Some(data(authority)),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(Created::Yes),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Created::Exists),
            Err(error) => Err(failed(error)),
        }
    }

    async fn publish(&mut self, certificate_pem: &str) -> Result<(), VaultError> {
        let data = BTreeMap::from([(CERTIFICATE.to_owned(), certificate_pem.to_owned())]);
        let result = match self.config_maps.get_opt(NAME).await.map_err(failed)? {
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(()),
            // With its resourceVersion: a change in between is a conflict, and the next step looks again.
            Some(map) => {
                let map = ConfigMap {
                    data: Some(data),
                    ..map
                };
                self.config_maps.replace(NAME, &PostParams::default(), &map).await
            }
            None => {
                let map = ConfigMap {
                    metadata: metadata(),
                    data: Some(data),
                    ..ConfigMap::default()
                };
                self.config_maps.create(&PostParams::default(), &map).await
            }
        };
        result.map(drop).map_err(failed)
    }
}

fn data(authority: &StoredAuthority) -> BTreeMap<String, ByteString> {
    let entries = [(CERTIFICATE, &authority.certificate_pem), (KEY, &authority.key_pem)];
    let entry = |(key, text): (&str, &String)| (key.to_owned(), ByteString(text.clone().into_bytes()));
    entries.into_iter().map(entry).collect()
}

fn metadata() -> ObjectMeta {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    ObjectMeta {
        name: Some(NAME.to_owned()),
        labels: Some(BTreeMap::from([
            label("app.kubernetes.io/name", "pierhead"),
            label("app.kubernetes.io/managed-by", "pierhead-controller"),
        ])),
        ..ObjectMeta::default()
    }
}

fn failed(error: kube::Error) -> VaultError {
    VaultError(error.to_string())
}

/// Asks the API server.
pub struct ApiReviewer {
    reviews: Api<TokenReview>,
}

impl ApiReviewer {
    pub fn new(client: &Client) -> Self {
        Self {
            reviews: Api::all(client.clone()),
        }
    }

    async fn ask(&self, token: &str) -> Result<Reviewed, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            ..TokenReview::default()
        };
        let post = PostParams::default();
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, self.reviews.create(&post, &review)).await;
        let unavailable = |why: String| Err(ReviewError::Unavailable(why));
        match answer {
            Ok(Ok(review)) => read(review),
            Ok(Err(error)) => unavailable(error.to_string()),
            Err(_) => unavailable(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs())),
        }
    }
}

impl Reviewer for ApiReviewer {
    fn review<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Reviewed, ReviewError>> + Send + 'a>> {
        Box::pin(self.ask(token))
    }
}

/// What a review says. An authenticator that knows no audiences answers without any: then the token was good for the API
/// server, not for us.
fn read(review: TokenReview) -> Result<Reviewed, ReviewError> {
    let refused = |why: &str| Err(ReviewError::Refused(why.to_owned()));
    let Some(status) = review.status else {
        return Err(ReviewError::Unavailable("a review without a status".to_owned()));
    };
    if status.authenticated != Some(true) {
        return refused(status.error.as_deref().unwrap_or("it is not authenticated"));
    }
    if !status
        .audiences
        .unwrap_or_default()
        .iter()
        .any(|audience| audience == AUDIENCE)
    {
        return refused("it is for another audience");
    }
    let user = status.user.unwrap_or_default();
    Ok(Reviewed {
        user: user.username.unwrap_or_default(),
        node: user
            .extra
            .unwrap_or_default()
            .remove("authentication.kubernetes.io/node-name")
            .and_then(|mut names| (names.len() == 1).then(|| names.remove(0))),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

    use super::*;

    fn status() -> TokenReviewStatus {
        let extra = (
            "authentication.kubernetes.io/node-name".to_owned(),
            vec!["node-1".to_owned()],
        );
        TokenReviewStatus {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            authenticated: Some(true),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:a:b".to_owned()),
                extra: Some(BTreeMap::from([extra])),
                ..UserInfo::default()
            }),
        }
    }

    fn said(status: TokenReviewStatus) -> Result<Reviewed, ReviewError> {
        read(TokenReview {
            status: Some(status),
            ..TokenReview::default()
        })
    }

    #[test]
    fn a_good_token_names_its_user_and_node() {
        let reviewed = said(status()).unwrap();
        assert_eq!(reviewed.user, "system:serviceaccount:a:b");
        assert_eq!(reviewed.node.as_deref(), Some("node-1"));
    }

    #[test]
    fn what_is_not_authenticated_or_for_others_is_refused() {
        let bad = [
            TokenReviewStatus {
                authenticated: Some(false),
                ..status()
            },
            TokenReviewStatus {
                authenticated: None,
                ..status()
            },
            TokenReviewStatus {
                audiences: None,
                ..status()
            },
            TokenReviewStatus {
                audiences: Some(vec!["https://kubernetes.default.svc".to_owned()]),
                ..status()
            },
        ];
        for status in bad {
            assert!(matches!(said(status), Err(ReviewError::Refused(_))));
        }
        assert!(matches!(read(TokenReview::default()), Err(ReviewError::Unavailable(_))));
    }
}
