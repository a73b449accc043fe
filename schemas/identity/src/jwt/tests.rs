use super::*;

const NOW: u64 = 1_800_000_000;

fn account() -> KeyPair {
    KeyPair::generate(KeyKind::Account).unwrap()
}

fn user_claims(account: &KeyPair) -> (KeyPair, Claims<User>) {
    let user = KeyPair::generate(KeyKind::User).unwrap();
    let claims = Claims::new(user.public_key(), "ann", NOW, User::scoped(account.public_key()));
    (user, claims)
}

/// Signs a header and claims of any content.
fn forge(header: &serde_json::Value, claims: &serde_json::Value, key: &KeyPair) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(format!("{header}.{claims}").as_bytes()));
    format!("{header}.{claims}.{signature}")
}

fn parts(token: &str) -> [serde_json::Value; 2] {
    let mut parts = token.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    [next(), next()]
}

#[test]
fn a_user_of_a_scoped_key_says_nothing_about_permissions() {
    let account = account();
    let (user, claims) = user_claims(&account);
    let token = encode(Claims { expires_at: Some(NOW + 10), ..claims.clone() }, &account).unwrap();
    let [header, claims_json] = parts(&token);
    assert_eq!(header, serde_json::json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let jti = claims_json["jti"].as_str().unwrap().to_owned();
    assert_eq!(jti.len(), 52);
    let expected = serde_json::json!({
        "exp": NOW + 10, "iat": NOW, "iss": account.public_key(), "name": "ann", "sub": user.public_key(), "jti": jti,
        "nats": { "issuer_account": account.public_key(), "type": "user", "version": 2 },
    });
    assert_eq!(claims_json, expected, "the server refuses a scoped user with permissions of its own");
    let decoded = verify::<User>(&token, &[account.public_key()], NOW).unwrap();
    let issuer = Some(account.public_key().clone());
    assert_eq!(decoded, Claims { expires_at: Some(NOW + 10), issuer, ..claims });
}

#[test]
fn permissions_and_accounts_round_trip() {
    let (operator, account) = (KeyPair::generate(KeyKind::Operator).unwrap(), account());
    let permissions = UserPermissions {
        subjects: Permissions {
            publish: SubjectPermissions { allow: vec!["a.{{subject()}}.>".to_owned()], deny: vec!["b".to_owned()] },
            subscribe: SubjectPermissions { allow: vec!["c".to_owned()], deny: Vec::new() },
        },
        limits: UserLimits::NONE,
        allowed_connection_types: vec![ConnectionKind::Standard],
    };
    let (_, claims) = user_claims(&account);
    let body = User::with_permissions(account.public_key(), permissions.clone());
    let claims = Claims { body, ..claims };
    let token = encode(claims.clone(), &account).unwrap();
    assert_eq!(decode::<User>(&token).unwrap().body, claims.body);
    let nats = &parts(&token)[1]["nats"];
    assert_eq!(nats["pub"], serde_json::json!({ "allow": ["a.{{subject()}}.>"], "deny": ["b"] }));
    assert_eq!((&nats["payload"], &nats["allowed_connection_types"][0]), (&(-1).into(), &"STANDARD".into()));

    let key = KeyPair::generate(KeyKind::Account).unwrap();
    let mut body = Account::new(AccountLimits { jetstream: JetStreamLimits::UNLIMITED, ..AccountLimits::CLIENTS_ONLY });
    body.signing_keys.push(Scope {
        kind: ScopeKind::UserScope,
        key: key.public_key().clone(),
        role: "viewer".to_owned(),
        template: permissions,
    });
    body.exports.push(Export {
        name: "requests".to_owned(),
        subject: "otherix.req.v1.>".to_owned(),
        kind: ExportKind::Service,
        response_type: Some(ResponseKind::Singleton),
        response_threshold: Some(3),
    });
    body.imports.push(Import {
        name: "live".to_owned(),
        subject: "live.>".to_owned(),
        account: account.public_key().clone(),
        local_subject: None,
        kind: ExportKind::Stream,
        share: false,
    });
    body.mappings.insert("live.>".to_owned(), vec![Mapping { subject: "forged.live.>".to_owned(), weight: 0 }]);
    body.revocations.insert(claims.subject.to_string(), 5);
    let token = encode(Claims::new(account.public_key(), "CLIENTS", NOW, body.clone()), &operator).unwrap();
    assert_eq!(decode::<Account>(&token).unwrap().body, body);
    let body = Operator {
        signing_keys: vec![operator.public_key().clone()],
        system_account: Some(account.public_key().clone()),
        strict_signing_key_usage: true,
    };
    let token = encode(Claims::new(operator.public_key(), "otherix", NOW, body.clone()), &operator).unwrap();
    assert_eq!(decode::<Operator>(&token).unwrap().body, body);
}

/// An account that somebody else's operator is to sign. Nothing else is signed by its subject.
#[test]
fn an_account_may_be_signed_by_itself_and_by_an_operator_only() {
    let (account, other) = (account(), self::account());
    let claims = || Claims::new(account.public_key(), "A", NOW, Account::new(AccountLimits::CLIENTS_ONLY));
    let token = encode(claims(), &account).unwrap();
    assert_eq!(decode::<Account>(&token).unwrap().issuer.as_ref(), Some(account.public_key()));
    let operator = KeyPair::generate(KeyKind::Operator).unwrap();
    assert!(matches!(verify::<Account>(&token, &[operator.public_key()], NOW), Err(JwtError::Issuer(_))));
    assert!(matches!(encode(claims(), &other), Err(JwtError::Key(KeyError::OtherKind { .. }))));
    let [header, mut body] = parts(&token);
    body["iss"] = serde_json::json!(other.public_key());
    let forged = forge(&header, &body, &other);
    assert!(matches!(decode::<Account>(&forged), Err(JwtError::Key(KeyError::OtherKind { .. }))));
}

#[test]
fn forged_tokens_are_refused() {
    let (account, foreign) = (account(), self::account());
    let (user, claims) = user_claims(&account);
    let claims = Claims { not_before: Some(NOW), expires_at: Some(NOW + 10), ..claims };
    let token = encode(claims.clone(), &account).unwrap();
    let check = |token: &str| verify::<User>(token, &[account.public_key()], NOW).map(drop);
    check(&token).unwrap();
    let [header, body] = parts(&token);

    let none = serde_json::json!({ "typ": "JWT", "alg": "none" });
    assert!(matches!(check(&forge(&none, &body, &account)), Err(JwtError::Algorithm(alg)) if alg == "none"));
    let unsigned = token.rsplit_once('.').unwrap().0;
    for token in ["", "a", "a.b", "a.b.c", unsigned, &format!("{unsigned}."), &format!("{token}.x")] {
        assert!(check(token).is_err(), "{token}");
    }
    // Another role, written into claims that are otherwise those of the token.
    let mut role = body.clone();
    role["nats"]["tags"] = serde_json::json!(["role:admin"]);
    let edited = BASE64_URL_SAFE_NO_PAD.encode(role.to_string());
    let mut words: Vec<&str> = token.split('.').collect();
    words[1] = &edited;
    assert!(matches!(check(&words.join(".")), Err(JwtError::Key(KeyError::Signature))));
    // Signed by somebody else, in the issuer's name and in the own name; by the user itself.
    assert!(matches!(check(&forge(&header, &body, &foreign)), Err(JwtError::Key(KeyError::Signature))));
    let other = encode(claims.clone(), &foreign).unwrap();
    assert!(matches!(check(&other), Err(JwtError::Issuer(key)) if key == *foreign.public_key()));
    assert!(matches!(encode(claims, &user), Err(JwtError::Key(KeyError::OtherKind { .. }))));
    let mut own = body.clone();
    own["iss"] = serde_json::json!(user.public_key());
    assert!(matches!(check(&forge(&header, &own, &user)), Err(JwtError::Key(KeyError::OtherKind { .. }))));
    // Of another type or version.
    for (field, value) in [("type", serde_json::json!("account")), ("version", serde_json::json!(1))] {
        let mut other = body.clone();
        other["nats"][field] = value;
        let error = check(&forge(&header, &other, &account)).unwrap_err();
        assert!(matches!(error, JwtError::OtherType { .. } | JwtError::Version(1)), "{error}");
    }
    let at = |now| verify::<User>(&token, &[account.public_key()], now).map(drop);
    assert!(matches!(at(NOW - 1), Err(JwtError::NotYetValid(NOW))));
    at(NOW + 9).unwrap();
    assert!(matches!(at(NOW + 10), Err(JwtError::Expired(until)) if until == NOW + 10));
}
