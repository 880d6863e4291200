-- A tenant's living keys are counted, and revoked where somebody takes their account back, without looking at its projects.
CREATE INDEX keys_of_tenant_by_end ON keys (tenant_id, ends_at);
