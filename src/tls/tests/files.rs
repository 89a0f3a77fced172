//! The files of the acceptor: taken up when they change, refused when they are spoilt.

use super::*;

#[tokio::test]
async fn f18_an_expired_crl_or_one_of_another_authority_refuses_everybody() {
    let mut given = Given::a_listener().await;
    let client = given.authority.client(7);
    let stranger = Authority::new("other");
    for crl in [given.authority.crl(&[], 2025), stranger.crl(&[], 2100)] {
        given.write("ca.crl", &crl);
        given.reloader.reload_now().await.unwrap();
        assert!(given.ask_once(given.client_config(Some(&client))).await.is_err());
    }
}

#[tokio::test]
async fn f17_f18_files_that_are_half_written_or_do_not_match_keep_the_old_ones_in_force() {
    let mut given = Given::a_listener().await;
    let client = given.authority.client(7);
    let next = given.authority.server();
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let spoils = [
        ("tls.crt", half(&next.chain)),
        ("tls.crt", next.chain.clone()),
        ("tls.crt", String::new()),
        ("tls.key", half(&next.key)),
        ("tls.key", next.key.clone()),
        ("ca.crt", half(&given.authority.0.pem())),
        ("ca.crt", String::new()),
        ("ca.crl", half(&given.authority.crl(&[7], 2100))),
        ("ca.crl", String::new()),
        ("ca.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned()),
    ];
    for (name, spoilt) in spoils {
        let good = std::fs::read_to_string(given.path(name)).unwrap();
        given.write(name, &spoilt);
        assert!(given.reloader.reload_now().await.is_err(), "{name}: {spoilt}");
        assert!(given.ask_once(given.client_config(Some(&client))).await.is_ok());
        given.write(name, &good);
    }
    std::fs::remove_file(given.path("tls.key")).unwrap();
    assert!(matches!(given.reloader.reload_now().await, Err(TlsError::Secret(_))));
    assert!(given.ask_once(given.client_config(Some(&client))).await.is_ok());
}

#[tokio::test]
async fn a66_a_private_key_that_others_can_read_is_refused_at_start_and_on_reload() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut given = Given::a_listener().await;
    let client = given.authority.client(7);
    let next = given.authority.server();
    given.write("tls.crt", &next.chain);
    given.write("tls.key", &next.key);
    std::fs::set_permissions(given.path("tls.key"), std::fs::Permissions::from_mode(0o644)).unwrap();

    assert!(matches!(given.reloader.reload_now().await, Err(TlsError::Secret(_))));
    assert!(given.ask_once(given.client_config(Some(&client))).await.is_ok(), "the old pair stays");
    let files = TlsFiles {
        certificate: given.path("tls.crt"),
        key: given.path("tls.key"),
        client_ca: given.path("ca.crt"),
        crl: None,
    };
    assert!(matches!(Tls::load(files), Err(TlsError::Secret(_))));
}

#[tokio::test(start_paused = true)]
async fn f17_rotated_files_are_taken_up_once_they_stand_still() {
    let given = Given::a_listener().await;
    let before = given.tls.config();
    let next = given.authority.server();
    let stop = tokio_util::sync::CancellationToken::new();
    let path = |name: &str| given.folder.path().join(name);
    let (tls, reloader) = Tls::load(TlsFiles {
        certificate: path("tls.crt"),
        key: path("tls.key"),
        client_ca: path("ca.crt"),
        crl: None,
    })
    .unwrap();
    let first = tls.config();
    let running = tokio::spawn(reloader.run(stop.clone()));

    given.write("tls.crt", &next.chain);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(Arc::ptr_eq(&first, &tls.config()));
    given.write("tls.key", &next.key);
    tokio::time::sleep(Duration::from_secs(5)).await;

    assert!(!Arc::ptr_eq(&first, &tls.config()));
    assert!(Arc::ptr_eq(&before, &given.tls.config()));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn f17_a_rotated_certificate_is_served_to_the_next_connection() {
    let mut given = Given::a_listener().await;
    let client = given.authority.client(7);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2090, 1, 1);
    let next = given.authority.sign(&params);

    given.write("tls.crt", &next.chain);
    given.write("tls.key", &next.key);
    given.reloader.reload_now().await.unwrap();

    let (_, stream) = given.ask(&Arc::new(given.client_config(Some(&client)))).await.unwrap();
    let served = &stream.get_ref().1.peer_certificates().unwrap()[0];
    assert_eq!(served, &CertificateDer::from_pem_slice(next.chain.as_bytes()).unwrap());
    assert_eq!(given.tls.expires_at().to_string(), "2090-01-01T00:00:00Z");
}
