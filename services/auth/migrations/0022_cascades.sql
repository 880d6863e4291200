-- Deleting users and providers looks for what goes with them: twenty thousand users took five seconds without.
CREATE INDEX sign_on_grants_of_user ON sign_on_grants (user_id);
CREATE INDEX sign_on_grants_of_provider ON sign_on_grants (provider_id);
CREATE INDEX sign_ons_of_provider ON sign_ons (provider_id);
