select endpoint_id, count(distinct (field, message)) as problems from endpoint_problems group by endpoint_id
